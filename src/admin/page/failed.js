// The failed objects of a job, while it runs too: their errors with counts, a search, and downloads.

import { address, chunksOf, jobPath, request, requestJson, showError } from "./api.js";
import { byId, element, scheduleDraw, setChildren, setText } from "./dom.js";
import { MAX_LINE_CHARS, count, truncate } from "./format.js";
import { phrase } from "./labels.js";
import { hasEnded, shown } from "./state.js";

// How many objects are added at once.
const PAGE_SIZE = 200;
// The largest `limit` of the API.
const MAX_GROUPS = 200;
// The least time until the ledger is read again, in milliseconds: it has an object shortly after the event.
const RELOAD_DELAY = 1000;
// How often this exceeds the time of the last load, which is long for very many objects.
const RELOAD_FACTOR = 10;

// `version` is that of the job at the last load. `rows` match the error and the search, up to the number `position`.
const empty = () => ({
  version: "",
  timer: null,
  delay: 0,
  groups: [],
  hasMoreGroups: false,
  error: null,
  rows: [],
  position: 0,
  wanted: PAGE_SIZE,
  isAtEnd: false,
  reading: null,
});
const failed = empty();

export function clearFailed() {
  clearTimeout(failed.timer);
  failed.reading?.abort();
  Object.assign(failed, empty());
  byId("failed-filters").reset();
  byId("failed-rows").replaceChildren();
  byId("failed-groups").replaceChildren();
  byId("failed-error").hidden = true;
  byId("failed").hidden = true;
}

export function drawFailed(job) {
  byId("failed").hidden = job.failed_total === 0;
  setText(byId("failed-count"), count(job.failed_total));
  for (const [id, format] of [["failed-csv", "csv"], ["failed-ndjson", "ndjson"]]) {
    byId(id).href = address(jobPath(job.id, `/failed?format=${format}`));
    byId(id).download = `failed-${job.id}.${format}`;
  }
  const version = `${job.failed_total} ${hasEnded(job)}`;
  if (job.failed_total === 0 || version === failed.version) return;
  failed.version = version;
  // Further changes until then are loaded at once.
  failed.timer ??= setTimeout(load, failed.delay);
}

async function load() {
  failed.timer = null;
  const { job } = shown;
  if (job === null) return;
  const began = performance.now();
  try {
    const page = await requestJson(jobPath(job.id, `/failed?group=error&limit=${MAX_GROUPS}`));
    if (shown.id !== job.id) return;
    Object.assign(failed, { groups: page.results, hasMoreGroups: page.next !== null });
    byId("failed-error").hidden = true;
    const known = page.results.reduce((total, group) => total + group.count, page.failed_left_out);
    failed.delay = Math.max(RELOAD_DELAY, RELOAD_FACTOR * (performance.now() - began));
    if (!hasEnded(job) && known < page.failed_total && page.next === null) failed.timer ??= setTimeout(load, failed.delay);
  } catch (error) {
    if (shown.id === job.id) showError(byId("failed-error"), error);
  }
  scheduleDraw(drawGroups);
  // Of a list that is cut, the rest is read on request.
  if (failed.isAtEnd || failed.rows.length < failed.wanted) read();
}

// Reads on until `wanted` objects match or there are no more.
async function read() {
  // The current read may have begun before the newest objects were recorded.
  failed.reading?.abort();
  const reading = new AbortController();
  Object.assign(failed, { reading, isAtEnd: false });
  const { id } = shown;
  try {
    const headers = { accept: "application/x-ndjson" };
    const response = await request(jobPath(id, `/failed?after=${failed.position}`), { signal: reading.signal, headers });
    for await (const lines of chunksOf(response, "\n")) {
      if (reading.signal.aborted || !lines.every(addRow)) return reading.abort();
      scheduleDraw(drawRows);
    }
    failed.isAtEnd = true;
  } catch (error) {
    if (!reading.signal.aborted && shown.id === id) showError(byId("failed-error"), error);
  } finally {
    scheduleDraw(drawRows);
  }
}

// Adds the object in a line if it matches. Returns whether more are wanted.
function addRow(line) {
  const row = JSON.parse(line);
  // The last line states how many are not kept.
  if (row.number === null) return true;
  if (failed.rows.length >= failed.wanted) return false;
  failed.position = row.number;
  if (matches(row)) failed.rows.push(row);
  return true;
}

function matches({ object, name, cluster, owner, error }) {
  const search = byId("failed-filters").elements.search.value.toLowerCase();
  if (failed.error !== null && error !== failed.error) return false;
  return [phrase(object), name, cluster, owner, error].some((text) => text?.toLowerCase().includes(search));
}

// Shows other objects: those that match the error and the search now.
function restart() {
  Object.assign(failed, { rows: [], position: 0, wanted: PAGE_SIZE });
  byId("failed-rows").replaceChildren();
  scheduleDraw(drawGroups);
  read();
}

function drawGroups() {
  const current = new Map([...byId("failed-groups").children].map((node) => [node.group, node]));
  const nodes = failed.groups.map(({ error, count: objects }) => {
    const node = current.get(error) ?? newGroup(error);
    node.firstElementChild.setAttribute("aria-pressed", String(error === failed.error));
    setText(node.querySelector("b"), count(objects));
    return node;
  });
  setChildren(byId("failed-groups"), nodes);
  byId("failed-groups-note").hidden = !failed.hasMoreGroups;
}

function newGroup(error) {
  const button = element("button", { type: "button" }, element("b"), element("span", {}, truncate(error, MAX_LINE_CHARS)));
  button.addEventListener("click", () => {
    failed.error = failed.error === error ? null : error;
    restart();
  });
  return Object.assign(element("li", {}, button), { group: error });
}

function drawRows() {
  const { job } = shown;
  if (job === null) return;
  const list = byId("failed-rows");
  const rows = failed.rows.length > 0 || failed.position > 0 ? failed.rows : recordedRows(job);
  list.append(...rows.slice(list.childElementCount).map(newRow));
  byId("failed-more").hidden = failed.isAtEnd || failed.rows.length < failed.wanted;
  const cut = job.failed_left_out === 0 ? "" : `${count(job.failed_left_out)} more are not kept (jobs.failed_objects).`;
  const none = failed.isAtEnd && rows.length === 0 && failed.position > 0 ? "No failed object matches." : "";
  setText(byId("failed-note"), [none, cut].filter((part) => part !== "").join(" "));
}

// A job of an earlier release has its first and last failed objects only.
const recordedRows = (job) => (failed.isAtEnd ? job.data.failed_objects : []);

// Objects that the backend only counts have no name.
function newRow({ object, name = object, cluster = null, owner = null, count: objects = 1, error }) {
  const about = name === object ? [] : [phrase(object), cluster, owner];
  const note = about.filter((part) => part !== null).join(" · ");
  const title = name ?? `${count(objects)} without a name`;
  const head = element("th", { scope: "row" }, title, note === "" ? null : element("span", { class: "about" }, note));
  return element("tr", {}, head, element("td", {}, truncate(error, MAX_LINE_CHARS)));
}

export function initFailed() {
  byId("failed-filters").addEventListener("input", restart);
  byId("failed-filters").addEventListener("submit", (event) => event.preventDefault());
  byId("failed-more").addEventListener("click", () => {
    failed.wanted += PAGE_SIZE;
    read();
  });
}
