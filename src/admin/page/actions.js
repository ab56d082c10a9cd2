// The actions of operators: to start and cancel syncs, and to sign out.

import { ApiError, jobPath, requestJson, showBanner, showError } from "./api.js";
import { loadBackends } from "./backends.js";
import { announce, byId, setText } from "./dom.js";
import { channelList, jobTitle, kindList, label } from "./labels.js";
import { backendName, bridgeState, cancelling, hasEnded, jobs, redraw, shown, started } from "./state.js";

const startFields = () => byId("start-form").elements;
const chosenBackend = () => bridgeState.backends.find(({ name }) => name === startFields().backend.value);
const chosenKind = () => chosenBackend().kinds.find(({ kind }) => kind === startFields().kind.value);

async function openStart() {
  byId("start-error").hidden = true;
  if (bridgeState.backends.length === 0) await loadBackends();
  if (bridgeState.backends.length === 0) {
    return showBanner(new ApiError(503, "The backends are not loaded yet.", "Try again in a moment."));
  }
  const { backend } = startFields();
  const before = backend.value;
  backend.replaceChildren(...bridgeState.backends.map(({ name }) => new Option(name, name, false, name === before)));
  byId("start-backend").hidden = bridgeState.backends.length < 2;
  drawKinds();
  byId("start-dialog").showModal();
}

function drawKinds() {
  const { kind: select } = startFields();
  const before = select.value || "full-update";
  const kinds = chosenBackend().kinds.filter((kind) => kind.queue_path !== null);
  select.replaceChildren(...kinds.map(({ kind }) => new Option(label(kind), kind, false, kind === before)));
  drawKindNote();
}

function drawKindNote() {
  const { known, channel, without } = chosenKind();
  let note = "The channel is chosen when the sync starts.";
  if (known) note = `Runs via ${channelList([channel])}${without.length === 0 ? "" : `, without ${kindList(without)}`}.`;
  if (known && channel === null) note = "The backend does not support this sync.";
  setText(byId("start-note"), note);
}

async function start(event, onJob) {
  event.preventDefault();
  const { key } = startFields();
  const headers = key.value === "" ? {} : { "X-Proxbox-API-Key": key.value };
  const query = bridgeState.backends.length > 1 ? `?bridge.backend=${encodeURIComponent(chosenBackend().name)}` : "";
  byId("start-go").disabled = true;
  try {
    const job = await requestJson(`${chosenKind().queue_path}${query}`, { method: "POST", headers });
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
  byId("start").addEventListener("click", openStart);
  byId("start-close").addEventListener("click", () => byId("start-dialog").close());
  // The API key does not stay in the form, however the dialog was closed.
  byId("start-dialog").addEventListener("close", () => (startFields().key.value = ""));
  byId("start-form").addEventListener("submit", (event) => start(event, onJob));
  startFields().backend.addEventListener("change", drawKinds);
  startFields().kind.addEventListener("change", drawKindNote);
}
