// The last success of each kind of sync on each backend, and its age.

import { jobPath } from "./api.js";
import { byId, element } from "./dom.js";
import { elapsedElement, now } from "./format.js";
import { FULL_UPDATE, label } from "./labels.js";
import { countNotes } from "./progress.js";
import { addView, bridgeState } from "./state.js";

// The age from which a success is marked, in milliseconds: a daily sync has two hours to finish.
const LIMIT = 26 * 3_600_000;

let drawn = "";

function drawFreshness() {
  const backends = bridgeState.backends.map((backend) => ({ name: backend.name, successes: successesOf(backend) }));
  byId("freshness-section").hidden = backends.every(({ successes }) => successes.length === 0);
  // Replacing unchanged links would take the focus from them.
  const wanted = JSON.stringify(backends);
  if (wanted === drawn) return;
  drawn = wanted;
  byId("freshness").replaceChildren(...backends.map(({ name, successes }) => backendNode(name, successes, backends.length > 1)));
}

function successesOf({ kinds }) {
  const known = kinds.filter(({ last_success: last }) => last !== null);
  const full = known.find(({ kind }) => kind === "full-update");
  // A full update runs its stages, too.
  const isCovered = (kind) => FULL_UPDATE.includes(kind) && full !== undefined && !full.without.includes(kind) && !isOld(full);
  return known.map((kind) => ({ ...kind.last_success, kind: kind.kind, isOld: isOld(kind) && !isCovered(kind.kind), age_seconds: 0 }));
}

const isOld = ({ last_success: last }) => now() - Date.parse(last.time) > LIMIT;

function backendNode(name, successes, isNamed) {
  const none = successes.length === 0 ? element("p", { class: "empty" }, "No sync has completed.") : null;
  const list = element("ul", {}, ...successes.map(successNode));
  return element("li", {}, isNamed ? element("h3", {}, name) : null, none, list);
}

function successNode({ job, kind, time, failed, unconfirmed, isOld }) {
  const notes = countNotes({ failed, unconfirmed });
  const note = notes === "" ? null : element("span", { class: "about" }, notes);
  const link = element("a", { href: `#${jobPath(job)}` }, label(kind));
  return element("li", isOld ? { class: "old" } : {}, link, element("span", {}, elapsedElement(time), " ago"), note);
}

addView(drawFreshness);
