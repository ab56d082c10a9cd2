// The actions of operators: to start and cancel syncs, and to sign out.

import { ApiError, jobPath, requestJson, showBanner, showError } from "./api.js";
import { loadBackends } from "./backends.js";
import { announce, byId, element, setText } from "./dom.js";
import { channelList, displayStatus, jobTitle, kindList, label } from "./labels.js";
import { backendName, bridgeState, cancelling, hasEnded, jobs, redraw, shown, started } from "./state.js";

const startFields = () => byId("start-form").elements;
const chosenBackend = () => bridgeState.backends.find(({ name }) => name === startFields().backend.value);
const chosenKind = () => chosenBackend().kinds.find(({ kind }) => kind === startFields().kind.value);

// The job that the form runs again, or null if it starts another sync.
let repeated = null;

async function openStart(again) {
  repeated = again;
  byId("start-error").hidden = true;
  if (bridgeState.backends.length === 0) await loadBackends();
  if (bridgeState.backends.length === 0) {
    return showBanner(new ApiError(503, "The backends are not loaded yet.", "Try again in a moment."));
  }
  const { backend, kind } = startFields();
  const before = again === null ? backend.value : backendOf(again).name;
  backend.replaceChildren(...bridgeState.backends.map(({ name }) => new Option(name, name, false, name === before)));
  byId("start-backend").hidden = bridgeState.backends.length < 2;
  backend.disabled = kind.disabled = again !== null;
  setText(byId("start-title"), again === null ? "Start a sync" : "Run this sync again");
  setText(byId("start-go"), again === null ? "Start" : "Run again");
  drawKinds();
  drawRepeated();
  byId("start-dialog").showModal();
}

// Shows the virtual machine and the query of the job that is run again.
function drawRepeated() {
  const { vm, query } = repeated ?? { vm: null, query: "" };
  const parts = [vm === null ? null : `Virtual machine ${vm}. `, query === "" ? null : "The same query: "];
  byId("start-again").replaceChildren(...parts.filter((part) => part !== null));
  if (query !== "") byId("start-again").append(element("code", {}, query));
}

function drawKinds() {
  const { kind: select } = startFields();
  const before = repeated?.kind ?? (select.value || "full-update");
  const isOffered = ({ kind, known, channel }) => (repeated === null ? !known || channel !== null : kind === repeated.kind);
  const kinds = chosenBackend().kinds.filter(isOffered);
  select.replaceChildren(...kinds.map(({ kind }) => new Option(label(kind), kind, false, kind === before)));
  drawKindNote();
}

function drawKindNote() {
  const { known, channel, without } = chosenKind() ?? { known: true, channel: null, without: [] };
  let note = "The channel is chosen when the sync starts.";
  if (known) note = `Runs via ${channelList([channel])}${without.length === 0 ? "" : `, without ${kindList(without)}`}.`;
  if (known && channel === null) note = "The backend does not support this sync.";
  setText(byId("start-note"), note);
  byId("start-go").disabled = known && channel === null;
}

// The path and the query that start the chosen sync.
function startTarget() {
  const { vm, query } = repeated ?? { vm: null, query: "" };
  const all = chosenKind().queue_path;
  const path = vm === null ? all : all.replace("/sync/virtual-machines/", `/sync/virtual-machines/${vm}/`);
  const backend = bridgeState.backends.length > 1 ? `bridge.backend=${encodeURIComponent(chosenBackend().name)}` : "";
  const parts = [query, backend].filter((part) => part !== "");
  return parts.length === 0 ? path : `${path}?${parts.join("&")}`;
}

const backendOf = (job) => bridgeState.backends.find(({ url }) => url === job.backend);

export function drawAgain(button, job) {
  const endedBadly = hasEnded(job) && !["completed", "completed_unconfirmed"].includes(displayStatus(job));
  // The secrets of a query are not recorded. Without them it would be another sync.
  const isKnown = backendOf(job) !== undefined && !job.query.includes("[hidden]");
  button.hidden = !bridgeState.info?.can_act || !endedBadly || !isKnown;
}

async function start(event, onJob) {
  event.preventDefault();
  const { key } = startFields();
  const headers = key.value === "" ? {} : { "X-Proxbox-API-Key": key.value };
  byId("start-go").disabled = true;
  try {
    const job = await requestJson(startTarget(), { method: "POST", headers });
    byId("start-dialog").close();
    const isNew = job.attaches === 0 && !jobs.has(job.id);
    started.add(job.id);
    onJob(job);
    location.hash = `#${jobPath(job.id)}`;
    announce(isNew ? `${jobTitle(job)} requested.` : `${jobTitle(job)} is already running.`);
  } catch (error) {
    showError(byId("start-error"), error);
  } finally {
    byId("start-go").disabled = false;
  }
}

export function drawCancel(button, job) {
  button.hidden = !bridgeState.info?.can_act || hasEnded(job);
  button.disabled = cancelling.has(job.id);
  setText(button, button.disabled ? "Cancelling…" : "Cancel");
}

export function confirmCancel(job) {
  const dialog = byId("cancel-dialog");
  byId("cancel-text").textContent = `${jobTitle(job)} on ${backendName(job.backend)}`;
  dialog.returnValue = "";
  dialog.onclose = () => dialog.returnValue === "cancel" && cancel(job.id);
  dialog.showModal();
}

async function cancel(id) {
  cancelling.add(id);
  redraw();
  try {
    await requestJson(jobPath(id), { method: "DELETE" });
  } catch (error) {
    cancelling.delete(id);
    redraw();
    showBanner(error);
  }
}

async function signOut() {
  try {
    await requestJson("/session", { method: "DELETE" });
    location.reload();
  } catch (error) {
    showBanner(error);
  }
}

// `onJob` is called with the job of a sync that was started.
export function initActions(onJob) {
  byId("sign-out").addEventListener("click", signOut);
  byId("job-cancel").addEventListener("click", () => confirmCancel(shown.job));
  byId("job-again").addEventListener("click", () => openStart(shown.job));
  byId("start").addEventListener("click", () => openStart(null));
  byId("start-close").addEventListener("click", () => byId("start-dialog").close());
  // The API key does not stay in the form, however the dialog was closed.
  byId("start-dialog").addEventListener("close", () => (startFields().key.value = ""));
  byId("start-form").addEventListener("submit", (event) => start(event, onJob));
  startFields().backend.addEventListener("change", drawKinds);
  startFields().kind.addEventListener("change", drawKindNote);
}
