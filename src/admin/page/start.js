// The form that starts a sync.

import { Problem, ask, complain, jobPath, showProblem } from "./api.js";
import { loadBackends } from "./backends.js";
import { byId, say, setText } from "./elements.js";
import { onJob } from "./live.js";
import { jobs, mine, told } from "./state.js";
import { namesOf, over, title, words } from "./words.js";

const chosenBackend = () => told.backends.find(({ name }) => name === byId("start-form").elements.backend.value);

async function openStart() {
  byId("start-problem").hidden = true;
  if (told.backends.length === 0) await loadBackends();
  if (told.backends.length === 0) return complain(new Problem(503, "The backends are not known yet.", "Try again in a moment."));
  const { backend } = byId("start-form").elements;
  const before = backend.value;
  backend.replaceChildren(...told.backends.map(({ name }) => new Option(name, name, false, name === before)));
  byId("start-backend").hidden = told.backends.length < 2;
  offerKinds();
  byId("start-dialog").showModal();
}

function offerKinds() {
  const { kind } = byId("start-form").elements;
  const before = kind.value || "full-update";
  const queued = chosenBackend().kinds.filter((one) => one.queue_path !== null);
  kind.replaceChildren(...queued.map((one) => new Option(words(one.kind), one.kind, false, one.kind === before)));
  noteOnKind();
}

function chosenKind() {
  return chosenBackend().kinds.find(({ kind }) => kind === byId("start-form").elements.kind.value);
}

function noteOnKind() {
  const kind = chosenKind();
  const without = kind.without.length === 0 ? "" : `, without ${namesOf(kind.without)}`;
  let note = "How it is done is found out when it starts.";
  if (kind.known) note = `It will be done over ${over([kind.channel])}${without}.`;
  if (kind.known && kind.channel === null) note = "This backend has no way to do it.";
  setText(byId("start-note"), note);
}

async function start(event) {
  event.preventDefault();
  const { key } = byId("start-form").elements;
  const headers = key.value === "" ? {} : { "X-Proxbox-API-Key": key.value };
  const query = told.backends.length > 1 ? `?bridge.backend=${encodeURIComponent(chosenBackend().name)}` : "";
  byId("start-go").disabled = true;
  try {
    const job = await ask(`${chosenKind().queue_path}${query}`, { method: "POST", headers });
    byId("start-dialog").close();
    const isNew = job.attaches === 0 && !jobs.has(job.id);
    mine.add(job.id);
    onJob(job);
    location.hash = `#${jobPath(job.id)}`;
    say(isNew ? `${title(job)} was asked for.` : `${title(job)} runs already; this is it.`);
  } catch (problem) {
    showProblem(byId("start-problem"), problem);
  } finally {
    byId("start-go").disabled = false;
  }
}

export function listenToStart() {
  byId("start").addEventListener("click", openStart);
  byId("start-close").addEventListener("click", () => byId("start-dialog").close());
  // A key that was typed is forgotten, however the dialog was left.
  byId("start-dialog").addEventListener("close", () => (byId("start-form").elements.key.value = ""));
  byId("start-form").addEventListener("submit", start);
  byId("start-form").elements.backend.addEventListener("change", offerKinds);
  byId("start-form").elements.kind.addEventListener("change", noteOnKind);
}
