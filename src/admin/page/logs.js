// The timeline of a job and its raw messages. Both show the newest lines only.

import { address, chunksOf, errorElements, jobPath, noResponse, request } from "./api.js";
import { byId, element, scheduleDraw, setText } from "./dom.js";
import { MAX_LINE_CHARS, count, duration, now, timeElement, truncate } from "./format.js";
import { LEVELS } from "./labels.js";
import { hasEnded, shown } from "./state.js";

// The most lines that a list shows, and the most that the timeline keeps to filter them.
const MAX_LINES = 500;
const MAX_KEPT = 20_000;

// The newest lines of a log. A list that is scrolled to its end stays there.
class Tail {
  #list;
  #newLine;
  #note;
  #unit;
  #queue = [];
  #kept = [];
  #matches = null;
  #total = 0;
  #draw = () => this.#drawQueue();

  // `newLine` makes the element of a line. `note` shows how many lines were left out; `unit` is their plural.
  constructor(list, newLine, note, unit) {
    this.#list = list;
    this.#newLine = newLine;
    this.#note = note;
    this.#unit = unit;
  }

  clear() {
    this.#kept = [];
    this.#empty();
  }

  #empty() {
    this.#queue = [];
    this.#total = 0;
    this.#list.replaceChildren();
    scheduleDraw(this.#draw);
  }

  // Shows only the lines for which `matches` is true. From the first call on, lines are kept for the next one.
  filter(matches) {
    this.#matches = matches;
    this.#empty();
    this.#show(this.#kept);
  }

  push(lines) {
    if (this.#matches !== null) for (const line of lines) this.#kept.push(line);
    // Not at every push, which would copy all of them.
    if (this.#kept.length > 2 * MAX_KEPT) this.#kept.splice(0, this.#kept.length - MAX_KEPT);
    this.#show(lines);
  }

  #show(all) {
    const lines = this.#matches === null ? all : all.filter(this.#matches);
    this.#total += lines.length;
    this.#queue.push(...lines.slice(-MAX_LINES));
    // Older lines would be removed before they are seen.
    if (this.#queue.length > 2 * MAX_LINES) this.#queue.splice(0, this.#queue.length - MAX_LINES);
    scheduleDraw(this.#draw);
  }

  #drawQueue() {
    const list = this.#list;
    const box = list.parentElement;
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const lines = this.#queue.splice(0).slice(-MAX_LINES);
    if (lines.length === MAX_LINES) list.replaceChildren();
    list.append(...lines.map(this.#newLine));
    while (list.childElementCount > MAX_LINES) list.firstElementChild.remove();
    this.#note.hidden = list.childElementCount === this.#total;
    setText(this.#note, `The newest ${count(list.childElementCount)} of ${count(this.#total)} ${this.#unit} are shown.`);
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }
}

export const timeline = new Tail(byId("timeline"), newEntry, byId("timeline-note"), "entries");

// Shows the entries that the fields above the timeline select.
function filterTimeline() {
  const { level, search } = byId("timeline-filters").elements;
  const wanted = search.value.toLowerCase();
  const isWanted = (entry) => level.value === "" || entry.level === "warning" || entry.level === "failure";
  timeline.filter((entry) => isWanted(entry) && entry.message.toLowerCase().includes(wanted));
}

function newEntry({ timestamp, level, message }) {
  const from = Date.parse(shown.job?.started ?? shown.job?.created ?? timestamp);
  const offset = Math.max(0, Date.parse(timestamp) - from) / 1000;
  return element(
    "li",
    { class: LEVELS[level] === undefined ? "info" : level },
    timeElement(timestamp, `+${duration(offset)}`),
    element("span", { class: "level" }, LEVELS[level] ?? level),
    element("span", { class: "text" }, truncate(message, MAX_LINE_CHARS)),
  );
}

// The log entry for an event, with the message that the bridge logs for it.
function entryFrom(name, { status, message = "", error = "", ok }) {
  if (name === "error") return { level: "failure", message: error };
  if (name === "complete") return { level: ok ? "success" : "failure", message };
  if (status === "failed") return { level: "warning", message: message.includes(error) ? message : `${message}: ${error}` };
  return { level: status === "completed" ? "success" : "info", message };
}

// Skips the events that are in the loaded log, which has their times: the stream replays all events of the job. The log
// may have only the newest ones.
class LogOverlap {
  #logged;
  #newest = [];
  #isOver;
  // After this time, all events are shown, even if the log matches none.
  #deadline = performance.now() + 10_000;

  constructor(entries) {
    this.#logged = entries.map(({ message }) => message);
    this.#isOver = entries.length === 0;
  }

  isNew(message) {
    if (this.#isOver || performance.now() > this.#deadline) return true;
    this.#newest.push(message);
    if (this.#newest.length > this.#logged.length) this.#newest.shift();
    this.#isOver = this.#newest.length === this.#logged.length && this.#newest.every((text, at) => text === this.#logged[at]);
    return false;
  }
}

// Adds the events of a running job to the timeline. `reload` loads the job again.
export function followJob(job, reload) {
  unfollowJob();
  shown.source = null;
  if (hasEnded(job)) return;
  const source = new EventSource(address(jobPath(job.id, "/events")));
  const overlap = new LogOverlap(job.log_entries);
  shown.source = source;
  for (const name of ["step", "error", "complete"]) {
    source.addEventListener(name, (event) => {
      // A connection error is an `error` event without data.
      if (event.data === undefined) return onLost(source, reload);
      const entry = entryFrom(name, JSON.parse(event.data));
      if (overlap.isNew(entry.message)) timeline.push([{ ...entry, timestamp: new Date(now()).toISOString() }]);
      if (name === "complete") {
        source.close();
        reload();
      }
    });
  }
}

export function unfollowJob() {
  shown.source?.close();
}

function onLost(source, reload) {
  if (source.readyState !== EventSource.CLOSED) return;
  setTimeout(() => shown.source === source && reload(), 2000);
}

export function initLogs() {
  filterTimeline();
  byId("timeline-filters").addEventListener("input", filterTimeline);
  byId("timeline-filters").addEventListener("submit", (event) => event.preventDefault());
  readWhileOpen(byId("raw-events"), "events", readEvents);
  readWhileOpen(byId("raw-recording"), "lines", readRecording);
}

export function closeRaw() {
  for (const details of [byId("raw-events"), byId("raw-recording")]) details.open = false;
}

// Calls `read(id, tail, signal)` when `details` is opened, and aborts the signal when it is closed.
function readWhileOpen(details, unit, read) {
  const note = details.querySelector(".left-out");
  const newLine = (text) => element("li", {}, truncate(text, MAX_LINE_CHARS));
  const tail = new Tail(details.querySelector("ol"), newLine, note, unit);
  let reading = null;
  details.addEventListener("toggle", async () => {
    reading?.abort();
    tail.clear();
    details.querySelector(".notice")?.remove();
    if (!details.open) return;
    reading = new AbortController();
    const { signal } = reading;
    try {
      await read(shown.id, tail, signal);
    } catch (error) {
      if (!signal.aborted) note.before(element("div", { class: "notice" }, ...errorElements(error)));
    }
  });
}

async function readRecording(id, tail, signal) {
  const response = await request(jobPath(id, "/recording"), { signal });
  try {
    for await (const lines of chunksOf(response, "\n")) tail.push(lines);
  } catch {
    throw noResponse();
  }
}

// Reads the event stream as text. EventSource would drop events of unknown types.
async function readEvents(id, tail, signal) {
  const position = { id: "", isComplete: false };
  while (!position.isComplete && !signal.aborted) {
    const after = position.id === "" ? "" : `&bridge.last_event_id=${encodeURIComponent(position.id)}`;
    const response = await request(jobPath(id, `/events?bridge.events=all${after}`), { signal }).catch((error) => {
      // The bridge may be restarting.
      if (error.status !== 0 || position.id === "") throw error;
      return null;
    });
    if (response?.status === 204) return;
    if (response !== null) await readBlocks(response, tail, position).catch(() => {});
    if (!position.isComplete) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function readBlocks(response, tail, position) {
  for await (const blocks of chunksOf(response, "\n\n")) {
    // A block that starts with `:` is a comment.
    const events = blocks.filter((block) => !block.startsWith(":"));
    for (const event of events) {
      position.id = /^id: (.*)$/m.exec(event)?.[1] ?? position.id;
      position.isComplete ||= /^event: complete$/m.test(event);
    }
    tail.push(events);
  }
}
