// Applies the events of the bridge to the page, and draws the header.

import { isStale, jobPath, markConnected, requestJson } from "./api.js";
import { loadBackends, loadBackendsSoon } from "./backends.js";
import { announce, byId, element, scheduleDraw } from "./dom.js";
import { elapsedElement, statusText, timeOfDay } from "./format.js";
import { addToHistory, loadHistory } from "./history.js";
import { loadJob, updateShownJob } from "./job.js";
import { jobTitle } from "./labels.js";
import { drawRunning } from "./progress.js";
import { addView, bridgeState, cancelling, hasEnded, jobs, problemOf, redraw, shown, started } from "./state.js";

export function onBridge(info) {
  const before = bridgeState.info;
  const isFresh = markConnected() || before?.instance !== info.instance;
  bridgeState.info = info;
  if (before !== null && before.version !== info.version) offerReload(info.version);
  redraw();
  if (isFresh) reloadAll();
}

// Loads everything that may have changed while there was no connection.
function reloadAll() {
  for (const id of jobs.keys()) reloadJob(id);
  loadBackends();
  if (shown.id === null) loadHistory();
  else loadJob();
}

async function reloadJob(id) {
  try {
    onJob(await requestJson(jobPath(id)));
  } catch (error) {
    // There is no record of the job. After other errors, the next connection reloads it.
    if (error.status === 404) removeJob(id);
  }
}

function removeJob(id) {
  jobs.delete(id);
  started.delete(id);
  cancelling.delete(id);
  scheduleDraw(drawRunning);
}

// The jobs whose end was received.
const ended = new Set();

export function onJob(job) {
  const before = jobs.get(job.id);
  // The answer that a sync has started may come after the event that it has ended.
  if (!hasEnded(job) && ended.has(job.id)) return;
  if (hasEnded(job)) {
    ended.add(job.id);
    if (started.has(job.id) || cancelling.has(job.id)) announce(`${jobTitle(job)}: ${statusText(job)}.`);
    removeJob(job.id);
    addToHistory(job);
  } else {
    jobs.set(job.id, job);
    scheduleDraw(drawRunning);
  }
  if (before?.status !== job.status) loadBackendsSoon();
  if (job.id === shown.id) updateShownJob(job);
}

function drawBridge() {
  if (bridgeState.info === null) return;
  const { draining, ready, version, started: since, can_act: canAct, user, has_token: hasToken } = bridgeState.info;
  let [state, text] = draining ? ["draining", "Stopping"] : ready ? ["ready", "Ready"] : ["unready", "Not ready"];
  if (isStale()) [state, text] = ["unknown", `Not connected since ${timeOfDay()}`];
  byId("bridge").replaceChildren(
    element("span", { class: `status ${state}` }, text),
    element("span", { class: "version" }, `Version ${version}`, ...(isStale() ? [] : [", up ", elapsedElement(since)])),
  );
  if (user !== null) byId("bridge").append(element("span", { class: "version" }, `Signed in as ${user}${canAct ? "" : " (read-only)"}`));
  byId("start").disabled = isStale();
  byId("start").hidden = !canAct;
  byId("sign-in").hidden = canAct || !hasToken;
  byId("no-token").hidden = hasToken;
  byId("sign-out").hidden = user === null;
}

function drawReasons() {
  const { info, backends } = bridgeState;
  const reasons = info === null || info.ready ? [] : info.reasons;
  const unreachable = backends.filter((backend) => backend.up === false);
  const lines = [
    ...reasons.map((reason) => `Not ready: ${reason}`),
    ...unreachable.map((backend) => `Backend ${backend.name} is unreachable${backend.problem === null ? "." : `: ${problemOf(backend)}`}`),
  ];
  if (byId("reasons").textContent === lines.join("")) return;
  byId("reasons").replaceChildren(...lines.map((line) => element("p", {}, line)));
  byId("reasons").hidden = lines.length === 0;
}

function offerReload(version) {
  byId("newer-text").textContent = `The bridge was updated to version ${version}. Reload the page to use it.`;
  byId("newer").hidden = false;
}

addView(drawBridge);
addView(drawReasons);
