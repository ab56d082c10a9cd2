// The listener on which the bridge stands between a backend and NetBox.

import { element, setText } from "./elements.js";
import { drawFacts } from "./facts.js";
import { count } from "./numbers.js";
import { agoOf } from "./signs.js";

const SOURCES = { configured: "backend.netbox_url", pushed: "pushed by the plugin" };

export function newListener() {
  const problem = element("p", { class: "said bad" });
  const held = element("p", { class: "said" });
  const facts = element("dl");
  const rules = element("ul", { class: "kinds" });
  const node = element("details", { class: "listener" }, element("summary", {}, "NetBox listener"), problem, held, facts, rules);
  return { node, problem, held, facts, rules };
}

export function drawListener(parts, listener) {
  parts.node.hidden = listener === null;
  if (listener === null) return;
  const { address, netbox, problem, held, last_request: last, proxmox_endpoints: proxmox, requests } = listener;
  const isWrong = problem !== null || held !== null;
  // What keeps syncs from running is seen without a click; what somebody closes then stays closed.
  if (isWrong && !parts.wasWrong) parts.node.open = true;
  parts.wasWrong = isWrong;
  for (const [node, text] of [[parts.problem, problem], [parts.held, held]]) {
    setText(node, text ?? "");
    node.hidden = text === null;
  }
  drawFacts(parts.facts, [
    ["Listens on", address],
    ["NetBox", netbox === null ? "not known yet" : `${netbox.url} (${SOURCES[netbox.source]})`],
    ["Last request", last === null ? "none since the bridge started" : agoOf(last)],
    ["Proxmox endpoints", proxmox === null ? null : count(proxmox.count)],
    ["Without secrets", proxmox === null ? null : proxmox.without_secrets.join(", ") || null],
  ]);
  const used = requests.filter(({ rule, count: times }) => rule === null || times > 0);
  parts.rules.replaceChildren(...used.map(lineOf));
}

function lineOf({ rule, count: times }) {
  const name = rule === null ? "Requests that no rule changed" : `Changed by ${rule}`;
  return element("li", {}, element("span", {}, name), element("b", {}, count(times)));
}
