// The finished jobs, and the filters on them.

import { jobPath, requestJson, showError } from "./api.js";
import { byId, element, scheduleDraw, setChildren, setText } from "./dom.js";
import { agoElement, count, duration, statusElement } from "./format.js";
import { displayStatus, jobTitle, label } from "./labels.js";
import { countNotes, drawRunning, totalCounts } from "./progress.js";
import { addView, backendName, bridgeState, hasEnded, jobs } from "./state.js";

const PAGE_SIZE = 25;
// The largest `limit` of the API.
const MAX_PAGE_SIZE = 200;

const FILTERS = ["kind", "outcome", "failed", "backend", "since"];

const history = { jobs: [], next: null, rows: new Map(), namesBackends: false, generation: 0, query: new URLSearchParams() };

// Applies the filters in the query of the fragment.
export function setFilters(query) {
  history.query = new URLSearchParams();
  for (const name of FILTERS) {
    const value = query.get(name) ?? "";
    const select = byId("filters").elements[name];
    // The link has a value that is not in the list. The bridge checks it.
    if (![...select.options].some((option) => option.value === value)) select.append(new Option(value, value));
    select.value = value;
    if (value !== "") history.query.set(name, value);
  }
  drawBackendFilter();
  byId("filters-clear").hidden = history.query.size === 0;
}

function readFilters() {
  const values = FILTERS.map((name) => [name, byId("filters").elements[name].value]);
  location.hash = hashFor(new URLSearchParams(values.filter(([, value]) => value !== "")));
}

const hashFor = (query) => (query.size === 0 ? "#/" : `#/?${encodeQuery(query)}`);

// The fragment of the overview with its filters.
export const homeHash = () => hashFor(history.query);

// Unlike URLSearchParams, the bridge reads `+` as a plus sign.
function encodeQuery(query) {
  return [...query].map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
}

function updateFilterOptions() {
  const kinds = new Set(bridgeState.backends.flatMap((backend) => backend.kinds.map(({ kind }) => kind)));
  const { kind, backend } = byId("filters").elements;
  addOptions(kind, [...kinds].map((name) => [name, label(name)]));
  addOptions(backend, bridgeState.backends.map(({ url, name }) => [url, name]));
  drawBackendFilter();
}

function addOptions(select, options) {
  for (const [value, text] of options) {
    const current = [...select.options].find((option) => option.value === value);
    if (current === undefined) select.append(new Option(text, value));
    else setText(current, text);
  }
}

function drawBackendFilter() {
  byId("filter-backend").hidden = bridgeState.backends.length < 2 && !history.query.has("backend");
}

export async function loadHistory() {
  const query = new URLSearchParams(history.query);
  query.set("limit", Math.min(MAX_PAGE_SIZE, Math.max(PAGE_SIZE, history.jobs.length)));
  await loadPage(`/jobs?${encodeQuery(query)}`, (page) => (history.jobs = page));
}

async function loadMore() {
  byId("more").disabled = true;
  await loadPage(history.next, (page) => history.jobs.push(...page));
  byId("more").disabled = false;
}

async function loadPage(path, add) {
  const generation = ++history.generation;
  try {
    const page = await requestJson(path);
    // The filters have changed since.
    if (generation !== history.generation) return;
    const ended = page.results.filter(hasEnded);
    // The answer may come before the events that they have ended.
    for (const { id } of ended) jobs.delete(id);
    scheduleDraw(drawRunning);
    add(ended);
    history.next = page.next;
    byId("history-error").hidden = page.warning === undefined;
    if (page.warning !== undefined) {
      byId("history-error").replaceChildren(element("p", { class: "notice warn" }, page.warning));
    }
  } catch (error) {
    if (generation !== history.generation) return;
    // Keeps the old list while the bridge is unreachable.
    if (error.status !== 0) Object.assign(history, { jobs: [], next: null });
    showError(byId("history-error"), error);
  }
  scheduleDraw(drawHistory);
}

// Adds a job that has ended. Job ids sort by creation, as the history does.
export function addToHistory(job) {
  if (!matchesFilters(job) || history.jobs.some(({ id }) => id === job.id)) return;
  const at = history.jobs.findIndex(({ id }) => id < job.id);
  // It belongs to a page that is not loaded.
  if (at < 0 && history.next !== null) return;
  history.jobs.splice(at < 0 ? history.jobs.length : at, 0, job);
  scheduleDraw(drawHistory);
}

function matchesFilters(job) {
  const values = { ...job, failed: String(job.failed_total > 0) };
  return ["kind", "outcome", "failed", "backend"].every((name) => (history.query.get(name) ?? values[name]) === values[name]);
}

function drawHistory() {
  const namesBackends = bridgeState.backends.length > 1;
  if (namesBackends !== history.namesBackends) history.rows.clear();
  history.namesBackends = namesBackends;
  const rows = history.jobs.map((job) => history.rows.get(job.id) ?? newRow(job));
  history.rows = new Map(history.jobs.map((job, at) => [job.id, rows[at]]));
  setChildren(byId("history"), rows);
  byId("more").hidden = history.next === null;
  byId("history-empty").hidden = rows.length > 0;
  const none = history.query.size === 0 ? "No sync has ended yet." : "No sync matches the filter.";
  setText(byId("history-empty"), history.next === null ? none : "No sync on this page has ended. Load more for older ones.");
}

function newRow(job) {
  const about = [history.namesBackends ? backendName(job.backend) : null, job.user].filter((part) => part !== null);
  const sync = [
    element("a", { href: `#${jobPath(job.id)}` }, jobTitle(job)),
    about.length === 0 ? null : element("span", { class: "about" }, about.join(" · ")),
    job.message === null ? null : element("span", { class: "message" }, job.message),
  ];
  const cell = (name, ...children) => element("td", { role: "cell", class: name }, ...children);
  return element(
    "tr",
    { role: "row" },
    cell("outcome", statusElement(job)),
    cell("sync", ...sync),
    cell("objects", ...countsOf(job)),
    cell("duration", job.duration_seconds === null ? "–" : duration(job.duration_seconds)),
    cell("requested", agoElement(job.created)),
  );
}

function countsOf(job) {
  const { seen, completed, failed, unconfirmed } = totalCounts(job.data.counts);
  if (seen === 0) return ["–"];
  // Some statuses have the number of unconfirmed objects.
  const notes = countNotes({ failed, unconfirmed: displayStatus(job) === "completed_unconfirmed" ? 0 : unconfirmed });
  const note = notes === "" ? null : element("span", { class: failed > 0 ? "notes bad" : "notes" }, notes);
  return [`${count(completed)} of ${count(seen)}`, note];
}

export function initHistory() {
  byId("more").addEventListener("click", loadMore);
  byId("filters").addEventListener("change", readFilters);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters-clear").addEventListener("click", () => (location.hash = "#/"));
}

addView(updateFilterOptions);
addView(drawHistory);
