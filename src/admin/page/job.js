// The page of one job.

import { drawAgain, drawCancel } from "./actions.js";
import { address, jobPath, requestJson, showError } from "./api.js";
import { byId, drawDetails, element, scheduleDraw, setText } from "./dom.js";
import { clearFailed, drawFailed } from "./failed.js";
import { bytes, count, dateTimeElement, drawStatus, duration, elapsedElement, plural } from "./format.js";
import { HINTS, SOURCES, channelList, jobTitle, label } from "./labels.js";
import { closeRaw, followJob, timeline, unfollowJob } from "./logs.js";
import { Bars } from "./progress.js";
import { addView, backendName, drawTitle, hasEnded, jobs, shown } from "./state.js";

const jobBars = new Bars(byId("job-bars"));

export function showJob(id) {
  closeJob();
  Object.assign(shown, { id, job: jobs.get(id) ?? null });
  byId("job-body").hidden = true;
  byId("job-error").hidden = true;
  byId("job-status").replaceChildren();
  byId("job-cancel").hidden = true;
  byId("job-again").hidden = true;
  byId("job-about").replaceChildren();
  setText(byId("job-title"), shown.job === null ? "Job" : jobTitle(shown.job));
  loadJob();
}

export function closeJob() {
  unfollowJob();
  shown.generation += 1;
  Object.assign(shown, { id: null, job: null, source: null });
  jobBars.clear();
  timeline.clear();
  clearFailed();
  closeRaw();
}

export async function loadJob() {
  const generation = ++shown.generation;
  try {
    const job = await requestJson(jobPath(shown.id));
    if (generation !== shown.generation) return;
    shown.job = job;
    byId("job-error").hidden = true;
    timeline.clear();
    timeline.push(job.log_entries);
    drawJob();
    followJob(job, loadJob);
  } catch (error) {
    if (generation === shown.generation) showError(byId("job-error"), error);
  }
}

// Updates the shown job from a `job` event, which has no log.
export function updateShownJob(job) {
  const hadEnded = shown.job !== null && hasEnded(shown.job);
  shown.job = job;
  scheduleDraw(drawJob);
  // Loads the end of the log and the exact times of its entries.
  if (hasEnded(job) && !hadEnded) loadJob();
}

function drawJob() {
  const { job } = shown;
  if (job === null) return;
  byId("job-body").hidden = false;
  setText(byId("job-title"), jobTitle(job));
  drawStatus(byId("job-status"), job);
  byId("job-about").replaceChildren(`On ${backendName(job.backend)}, requested `, dateTimeElement(job.created));
  drawCancel(byId("job-cancel"), job);
  drawAgain(byId("job-again"), job);
  jobBars.draw(job);
  byId("job-bars-empty").hidden = Object.keys(job.data.counts).length > 0 || job.status === "running";
  setText(byId("job-bars-empty"), hasEnded(job) ? "No object was reported." : "Queued on the backend.");
  byId("timeline-empty").hidden = !hasEnded(job) || job.log_entries?.length !== 0;
  setText(byId("timeline-empty"), "The log of this job was removed (limits.log_retention).");
  drawFailure(job);
  drawFailed(job);
  drawDetails(byId("details"), detailsOf(job));
  byId("recording-file").href = address(jobPath(job.id, "/recording"));
  byId("timeline-file").href = address(jobPath(job.id));
  byId("timeline-file").download = `job-${job.id}.json`;
  drawTitle();
}

function drawFailure({ message, error, cause, source, step, cancelled_by: user }) {
  byId("job-failure").hidden = cause === null;
  if (cause === null) return;
  setText(byId("failure-title"), label(cause));
  const where = step === null ? "" : `Step: ${label(step)}. `;
  const who = user ? `Cancelled by ${user}.` : `Caused by ${SOURCES[source] ?? source}.`;
  setText(byId("failure-message"), message ?? "");
  byId("failure-message").hidden = message === null;
  setText(byId("failure-source"), `${where}${who}`);
  setText(byId("failure-error"), error ?? "");
  byId("failure-error").hidden = error === null || error === message;
  setText(byId("failure-hint"), HINTS[cause] ?? "");
  byId("failure-hint").hidden = !(cause in HINTS);
}

function detailsOf(job) {
  const code = (text) => (text === null || text === "" ? null : element("code", {}, text));
  const time = (value) => (value === null ? null : dateTimeElement(value));
  const name = backendName(job.backend);
  const { fingerprint, address } = job.who;
  return [
    ["ID", code(job.id)],
    ["Backend", name === job.backend ? name : `${name} (${job.backend})`],
    ["Channel", channelList(job.channels) || null],
    ["Dialect", job.dialect],
    ["Requested", time(job.created)],
    ["By", [job.user, address].filter((part) => part !== null).join(", from ") || null],
    ["Key fingerprint", code(fingerprint)],
    ["Query", code(job.query)],
    ["Started", time(job.started)],
    ["Ended", time(job.completed)],
    ["Duration", durationOf(job)],
    ["First event after", job.first_frame_seconds === null ? null : duration(job.first_frame_seconds)],
    ["From backend", `${plural(job.frames_in, "event")}, ${bytes(job.bytes_in)}`],
    ["To clients", `${plural(job.frames_out, "event")}, ${bytes(job.bytes_out)}`],
    ["Clients", `${count(job.watchers)} at most, ${count(job.attaches)} attached later`],
  ];
}

function durationOf(job) {
  if (job.duration_seconds !== null) return duration(job.duration_seconds);
  return job.started === null || hasEnded(job) ? null : elapsedElement(job.started);
}

addView(drawJob);
