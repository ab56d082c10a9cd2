// The backends, and what each kind of sync will use there.

import { ask, showProblem } from "./api.js";
import { reconnect } from "./connection.js";
import { byId, element, fill, later, setText } from "./elements.js";
import { drawFacts } from "./facts.js";
import { offerChoices } from "./filters.js";
import { drawReasons } from "./header.js";
import { drawHistory, forgetRows } from "./history.js";
import { drawListener, newListener } from "./listener.js";
import { count } from "./numbers.js";
import { drawRunning } from "./running.js";
import { told } from "./state.js";
import { channel, namesOf, words } from "./words.js";

const UP = {
  true: ["up", "Answers"],
  false: ["down", "Does not answer"],
  null: ["unknown", "Not asked yet"],
};

const CIRCUITS = {
  open: "It is left alone for a while, and requests are answered 503 at once.",
  half_open: "One request is trying whether it answers again.",
};

const backendParts = new Map();
let backendsDue = null;

// Several jobs may begin and end at once.
export function loadBackendsSoon() {
  backendsDue ??= setTimeout(loadBackends, 300);
}

export async function loadBackends() {
  clearTimeout(backendsDue);
  backendsDue = null;
  try {
    const { results } = await ask("/backends");
    const wereSeveral = told.backends.length > 1;
    told.backends = results;
    byId("backends-problem").hidden = true;
    if (wereSeveral !== told.backends.length > 1) forgetRows();
    later(drawBackends);
  } catch (problem) {
    showProblem(byId("backends-problem"), problem);
    if (problem.status === 0) reconnect();
  }
}

function drawBackends() {
  const nodes = told.backends.map((backend) => {
    const parts = backendParts.get(backend.name) ?? newBackend();
    backendParts.set(backend.name, parts);
    drawBackend(parts, backend);
    return parts.node;
  });
  fill(byId("backends"), nodes);
  offerChoices();
  drawReasons();
  drawRunning();
  drawHistory();
}

function newBackend() {
  const head = element("div", { class: "title" });
  const url = element("p", { class: "url" });
  const text = element("p", { class: "about" });
  const problem = element("p", { class: "said" });
  const facts = element("dl");
  const kinds = element("ul", { class: "kinds" });
  const details = element("details", {}, element("summary", {}, "What each kind will use"), kinds);
  // On a phone, fourteen lines for each backend would hide the rest.
  details.open = matchMedia("(min-width: 48rem)").matches;
  const verdicts = element("ul", { class: "kinds" });
  const job = element("details", {}, element("summary", {}, "How jobs of NetBox end"), verdicts);
  const listener = newListener();
  const node = element("li", { class: "card" }, head, url, problem, text, facts, details, job, listener.node);
  return { node, head, url, text, problem, facts, kinds, job, verdicts, listener };
}

function drawBackend(parts, backend) {
  const [state, label] = UP[backend.up];
  parts.head.replaceChildren(
    element("h3", {}, backend.name),
    element("span", { class: `status ${state}` }, label),
  );
  setText(parts.url, backend.url);
  setText(parts.problem, backend.problem ?? "");
  // What is wrong with one that answers keeps it from nothing.
  parts.problem.classList.toggle("bad", backend.up === false);
  parts.problem.hidden = backend.problem === null;
  setText(parts.text, CIRCUITS[backend.circuit] ?? "");
  parts.text.hidden = !(backend.circuit in CIRCUITS);
  drawFacts(parts.facts, [
    ["Version", backend.version ?? "not known yet"],
    ["Dialect", backend.dialect ?? "not known yet"],
    ["Channel", backend.channel],
    ["Running", `${count(backend.running)} of ${count(backend.concurrency)}`],
    ["Waiting", `${count(backend.waiting)} of ${count(backend.queue)}`],
    ...(backend.cooling_down.length > 0 ? [["Cooling down", count(backend.cooling_down.length)]] : []),
  ]);
  parts.job.hidden = backend.plugin_job === null;
  parts.verdicts.replaceChildren(...linesOf(backend.plugin_job));
  drawListener(parts.listener, backend.netbox_listener);
  parts.kinds.replaceChildren(...backend.kinds.filter(({ known }) => known).map(kindOf), ...unknownOf(backend.kinds));
}

// How the jobs of the plugin's buttons end, why, and what the bridge does for each request that needs it.
function linesOf(job) {
  if (job === null) return [];
  const verdicts = job.verdicts.map(({ kind, ending, because }) => {
    const state = ending === "errored" ? "cannot" : "can";
    const why = because.length === 0 ? null : element("span", { class: "without" }, because.join(" "));
    return element("li", { class: state }, element("span", {}, words(kind)), element("b", {}, ending), why);
  });
  const conditions = job.conditions.map((condition) => element("li", {}, element("span", {}, `If: ${condition}`)));
  const helped = job.requests.filter(({ treatment }) => treatment !== "answered");
  const requests = helped.map(({ request, treatment, why }) =>
    element("li", {}, element("span", {}, request), element("b", {}, treatment), element("span", { class: "without" }, why)),
  );
  return [...verdicts, ...conditions, ...requests];
}

function kindOf(kind) {
  const [state, label] = kind.channel === null ? ["cannot", "not possible"] : ["can", channel(kind.channel)];
  const without = kind.without.length === 0 ? null : element("span", { class: "without" }, `without ${namesOf(kind.without)}`);
  return element("li", { class: state }, element("span", {}, words(kind.kind)), element("b", {}, label), without);
}

// Kinds of which the backend is asked when the next sync of them begins.
function unknownOf(kinds) {
  const unknown = kinds.filter(({ known }) => !known).map(({ kind }) => kind);
  if (unknown.length === 0) return [];
  const which = unknown.length === kinds.length ? "the backend is asked before the next sync" : namesOf(unknown);
  return [element("li", { class: "unknown" }, element("span", {}, `Not known yet: ${which}.`))];
}
