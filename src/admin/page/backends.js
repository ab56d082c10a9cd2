// The backends: their state, the channel for each kind of sync, and their NetBox listeners.

import { reconnect, requestJson, showError } from "./api.js";
import { byId, drawDetails, element, scheduleDraw, setChildren, setText } from "./dom.js";
import { agoElement, count } from "./format.js";
import { channelLabel, kindList, label } from "./labels.js";
import { bridgeState, problemOf, redraw } from "./state.js";

const UP = {
  true: ["up", "Reachable"],
  false: ["down", "Unreachable"],
  null: ["unknown", "Not checked yet"],
};

const CIRCUITS = {
  open: "Circuit open: requests get 503 without reaching the backend.",
  half_open: "Circuit half open: one request tests whether the backend responds.",
};

const NETBOX_SOURCES = { configured: "backend.netbox_url", pushed: "pushed by the plugin" };

const cards = new Map();
let loadTimer = null;

// Several changes at about the same time cause one request.
export function loadBackendsSoon() {
  loadTimer ??= setTimeout(loadBackends, 300);
}

export async function loadBackends() {
  clearTimeout(loadTimer);
  loadTimer = null;
  try {
    const { results } = await requestJson("/backends");
    bridgeState.backends = results;
    byId("backends-error").hidden = true;
    scheduleDraw(drawBackends);
  } catch (error) {
    showError(byId("backends-error"), error);
    if (error.status === 0) reconnect();
  }
}

function drawBackends() {
  const nodes = bridgeState.backends.map((backend) => {
    const card = cards.get(backend.name) ?? newCard();
    cards.set(backend.name, card);
    drawCard(card, backend);
    return card.node;
  });
  setChildren(byId("backends"), nodes);
  redraw();
}

function newCard() {
  const head = element("div", { class: "title" });
  const url = element("p", { class: "url" });
  const circuit = element("p", { class: "about" });
  const problem = element("p", { class: "quoted" });
  const details = element("dl");
  const kinds = element("ul", { class: "lines" });
  const kindsNode = element("details", {}, element("summary", {}, "Channel for each kind of sync"), kinds);
  // On a narrow screen, the list of kinds would push the other backends out of sight.
  kindsNode.open = matchMedia("(min-width: 48rem)").matches;
  const pluginJob = element("ul", { class: "lines" });
  const pluginJobNode = element("details", {}, element("summary", {}, "Outcomes of NetBox jobs"), pluginJob);
  const listener = newListener();
  const node = element("li", { class: "card" }, head, url, problem, circuit, details, kindsNode, pluginJobNode, listener.node);
  return { node, head, url, circuit, problem, details, kinds, pluginJob, pluginJobNode, listener };
}

function drawCard(card, backend) {
  const [state, text] = UP[backend.up];
  card.head.replaceChildren(element("h3", {}, backend.name), element("span", { class: `status ${state}` }, text));
  setText(card.url, backend.url);
  setText(card.problem, problemOf(backend) ?? "");
  // A reachable backend works despite its problem.
  card.problem.classList.toggle("bad", backend.up === false);
  card.problem.hidden = backend.problem === null;
  setText(card.circuit, CIRCUITS[backend.circuit] ?? "");
  card.circuit.hidden = !(backend.circuit in CIRCUITS);
  drawDetails(card.details, [
    ["Clients", clientAddress(backend)],
    ["Version", backend.version ?? "not known yet"],
    ["Dialect", backend.dialect ?? "not known yet"],
    ["Detected", backend.detected === null ? null : agoElement(backend.detected)],
    ["Channel", backend.channel],
    ["Running", `${count(backend.running)} of ${count(backend.concurrency)}`],
    ["Queued", `${count(backend.waiting)} of ${count(backend.queue)}`],
    ["Cooling down", backend.cooling_down.length === 0 ? null : count(backend.cooling_down.length)],
  ]);
  card.pluginJobNode.hidden = backend.plugin_job === null;
  card.pluginJob.replaceChildren(...pluginJobLines(backend.plugin_job));
  drawListener(card.listener, backend.netbox_listener);
  const known = backend.kinds.filter((kind) => kind.known);
  card.kinds.replaceChildren(...known.map(kindLine), ...unknownKindsLine(backend.kinds));
}

// The address of the bridge for clients of the backend.
function clientAddress({ listen, tls, hosts }) {
  const parts = [listen, tls ? "TLS" : null, hosts.length === 0 ? null : `as ${hosts.join(" or ")}`];
  return parts.filter((part) => part !== null).join(", ");
}

const line = (state, name, value, note = null) =>
  element("li", { class: state }, element("span", {}, name), element("b", {}, value), note && element("span", { class: "note" }, note));

// The outcome of each job of the NetBox plugin, its conditions, and the requests that the bridge changes for it.
function pluginJobLines(job) {
  if (job === null) return [];
  const verdicts = job.verdicts.map(({ kind, ending, because }) =>
    line(ending === "errored" ? "cannot" : "can", label(kind), ending, because.join(" ") || null),
  );
  const conditions = job.conditions.map((condition) => element("li", {}, element("span", {}, `If: ${condition}`)));
  const changed = job.requests.filter(({ treatment }) => treatment !== "answered");
  const requests = changed.map(({ request, treatment, why }) => line("can", request, treatment, why));
  return [...verdicts, ...conditions, ...requests];
}

function kindLine({ kind, channel, without }) {
  const note = without.length === 0 ? null : `without ${kindList(without)}`;
  const [state, value] = channel === null ? ["cannot", "not supported"] : ["can", channelLabel(channel)];
  return line(state, label(kind), value, note);
}

// The kinds whose channel is detected before their next sync.
function unknownKindsLine(kinds) {
  const unknown = kinds.filter(({ known }) => !known).map(({ kind }) => kind);
  if (unknown.length === 0) return [];
  const names = unknown.length === kinds.length ? "Detected before the next sync." : `Not detected yet: ${kindList(unknown)}.`;
  return [element("li", { class: "unknown" }, element("span", {}, names))];
}

function newListener() {
  const problem = element("p", { class: "quoted bad" });
  const held = element("p", { class: "quoted" });
  const details = element("dl");
  const rules = element("ul", { class: "lines" });
  const summary = element("summary", {}, "NetBox listener");
  const node = element("details", { class: "listener" }, summary, problem, held, details, rules);
  return { node, problem, held, details, rules, hadProblem: false };
}

function drawListener(parts, listener) {
  parts.node.hidden = listener === null;
  if (listener === null) return;
  const { address, netbox, problem, held, last_request: last, proxmox_endpoints: proxmox, requests } = listener;
  const hasProblem = problem !== null || held !== null;
  // Opened when a problem begins. Operators can close it again.
  if (hasProblem && !parts.hadProblem) parts.node.open = true;
  parts.hadProblem = hasProblem;
  for (const [node, text] of [[parts.problem, problem], [parts.held, held]]) {
    setText(node, text ?? "");
    node.hidden = text === null;
  }
  drawDetails(parts.details, [
    ["Address", address],
    ["NetBox", netbox === null ? "not known yet" : `${netbox.url} (${NETBOX_SOURCES[netbox.source]})`],
    ["Last request", last === null ? "none since the bridge started" : agoElement(last)],
    ["Proxmox endpoints", proxmox === null ? null : count(proxmox.count)],
    ["Without secrets", proxmox?.without_secrets.join(", ") || null],
  ]);
  const used = requests.filter(({ rule, count: times }) => rule === null || times > 0);
  const name = (rule) => (rule === null ? "Unchanged requests" : `Changed by ${rule}`);
  parts.rules.replaceChildren(...used.map(({ rule, count: times }) => line("can", name(rule), count(times))));
}
