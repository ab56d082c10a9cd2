// The page of one job.

import { ask, jobPath, showProblem } from "./api.js";
import { Bars } from "./bars.js";
import { drawCancel, showsCancelling } from "./cancel.js";
import { byId, later, setText } from "./elements.js";
import { drawFacts, factsOf } from "./facts.js";
import { closeRaw } from "./raw.js";
import { drawStatus } from "./signs.js";
import { hasEnded, jobs, shown } from "./state.js";
import { timeline, unwatch, watch } from "./timeline.js";
import { drawTitle } from "./title.js";
import { drawFailed, drawFailure } from "./verdict.js";
import { title } from "./words.js";

const jobBars = new Bars(byId("job-bars"));

export function showJob(id) {
  closeJob();
  Object.assign(shown, { id, job: jobs.get(id) ?? null });
  byId("job-body").hidden = true;
  byId("job-problem").hidden = true;
  byId("job-status").replaceChildren();
  byId("job-cancel").hidden = true;
  setText(byId("job-title"), shown.job === null ? "Job" : title(shown.job));
  loadJob();
}

export function closeJob() {
  unwatch();
  shown.ticket += 1;
  Object.assign(shown, { id: null, job: null, source: null });
  jobBars.clear();
  timeline.clear();
  byId("failed-rows").replaceChildren();
  closeRaw();
}

export async function loadJob() {
  const ticket = ++shown.ticket;
  try {
    const job = await ask(jobPath(shown.id));
    if (ticket !== shown.ticket) return;
    shown.job = job;
    byId("job-problem").hidden = true;
    timeline.clear();
    timeline.push(job.log_entries);
    drawJob();
    watch(job, loadJob);
  } catch (problem) {
    if (ticket !== shown.ticket) return;
    showProblem(byId("job-problem"), problem);
  }
}

// Takes what an event says of the job that is shown. Its log comes another way.
export function onShown(job) {
  const hadEnded = shown.job !== null && hasEnded(shown.job);
  shown.job = job;
  later(drawJob);
  // The end of the log, and the exact time of every entry.
  if (hasEnded(job) && !hadEnded) loadJob();
}

export function drawJob() {
  const { job } = shown;
  if (job === null) return;
  byId("job-body").hidden = false;
  setText(byId("job-title"), title(job));
  drawStatus(byId("job-status"), job);
  drawCancel(byId("job-cancel"), job);
  jobBars.draw(job);
  byId("job-bars-none").hidden = Object.keys(job.data.counts).length > 0 || job.status === "running";
  setText(byId("job-bars-none"), hasEnded(job) ? "No object was told of." : "Waits for its turn on the backend.");
  byId("timeline-none").hidden = !hasEnded(job) || job.log_entries?.length !== 0;
  setText(byId("timeline-none"), "The log of this job is not kept any more (limits.log_retention).");
  drawFailure(job);
  drawFailed(job.data.failed_objects);
  drawFacts(byId("facts"), factsOf(job));
  byId("recording-file").href = jobPath(job.id, "/recording");
  drawTitle();
}

showsCancelling(drawJob);
