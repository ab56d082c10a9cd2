// The state that modules share, and the title of the document.

import { scheduleDraw } from "./dom.js";
import { count, shortDateTime, statusText } from "./format.js";
import { jobTitle } from "./labels.js";

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

// What is wrong with a backend, without the URL that stands beside it.
export const problemOf = ({ url, problem }) => (problem?.startsWith(`${url}: `) ? problem.slice(url.length + 2) : problem);

const views = [];

// Registers a function that draws shared state. `redraw` calls it.
export function addView(draw) {
  views.push(draw);
}

export const redraw = () => views.forEach(scheduleDraw);

export function drawTitle() {
  const running = jobs.size === 0 ? null : `${count(jobs.size)} running`;
  const parts = shown.id === null ? [running] : shown.job === null ? [] : jobParts(shown.job);
  document.title = [...parts, "proxbox-bridge"].filter((part) => part !== null).join(" – ");
}

// The parts of the title by which the tabs and bookmarks of jobs differ.
function jobParts(job) {
  const time = shortDateTime(Date.parse(job.created));
  return [`${jobTitle(job)}: ${statusText(job).toLowerCase()}`, backendName(job.backend), time];
}
