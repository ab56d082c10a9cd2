// The state that modules share, and the title of the document.

import { scheduleDraw } from "./dom.js";
import { count } from "./format.js";
import { displayStatus, jobTitle, phrase } from "./labels.js";

// The last `bridge` event and the last response of /backends.
export const bridgeState = { info: null, backends: [] };
// The jobs that have not ended, by id.
export const jobs = new Map();
// The ids of jobs that this page has started, and of jobs that it is cancelling.
export const started = new Set();
export const cancelling = new Set();

// The job whose page is shown: `job` is null until it is loaded. A response with an old `generation` is dropped.
export const shown = { id: null, job: null, source: null, generation: 0 };

export const hasEnded = (job) => job.completed !== null;

export function backendName(url) {
  return bridgeState.backends.find((backend) => backend.url === url)?.name ?? url;
}

const views = [];

// Registers a function that draws shared state. `redraw` calls it.
export function addView(draw) {
  views.push(draw);
}

export const redraw = () => views.forEach(scheduleDraw);

export function drawTitle() {
  const running = jobs.size === 0 ? null : `${count(jobs.size)} running`;
  const job = shown.job === null ? null : `${jobTitle(shown.job)}: ${phrase(displayStatus(shown.job))}`;
  document.title = [shown.id === null ? running : job, "proxbox-bridge"].filter((part) => part !== null).join(" – ");
}
