// What the bridge tells, and everything that changes with it.

import { ask, jobPath } from "./api.js";
import { loadBackends, loadBackendsSoon } from "./backends.js";
import { noteHeard } from "./connection.js";
import { later, say } from "./elements.js";
import { drawBridge, offerReload } from "./header.js";
import { loadHistory, noteEnded } from "./history.js";
import { loadJob, onShown } from "./job.js";
import { drawRunning } from "./running.js";
import { cancelling, hasEnded, jobs, mine, shown, told } from "./state.js";
import { standing, title, words } from "./words.js";

export function onBridge(said) {
  const before = told.bridge;
  const isFresh = noteHeard() || before?.instance !== said.instance;
  told.bridge = said;
  if (before !== null && before.version !== said.version) offerReload(said.version);
  later(drawBridge);
  if (isFresh) renew();
}

// Asks for everything again: what happened while there was no connection is told by no event.
function renew() {
  for (const id of jobs.keys()) recheck(id);
  loadBackends();
  if (shown.id === null) loadHistory();
  else loadJob();
}

async function recheck(id) {
  try {
    onJob(await ask(jobPath(id)));
  } catch (problem) {
    // Nobody knows it any more. Anything else is asked again with the next connection.
    if (problem.status === 404) forget(id);
  }
}

function forget(id) {
  jobs.delete(id);
  mine.delete(id);
  cancelling.delete(id);
  later(drawRunning);
}

export function onJob(job) {
  const before = jobs.get(job.id);
  if (hasEnded(job)) {
    if (mine.has(job.id) || cancelling.has(job.id)) say(`${title(job)}: ${words(standing(job))}.`);
    forget(job.id);
    noteEnded(job);
  } else {
    jobs.set(job.id, job);
    later(drawRunning);
  }
  if (before?.status !== job.status) loadBackendsSoon();
  if (job.id === shown.id) onShown(job);
}
