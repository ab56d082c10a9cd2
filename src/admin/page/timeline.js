// The log of one job, as it was kept and as it goes on.

import { jobPath } from "./api.js";
import { now } from "./clock.js";
import { byId, element } from "./elements.js";
import { LINE_CHARS, duration, shortened } from "./numbers.js";
import { timeOf } from "./signs.js";
import { hasEnded, shown } from "./state.js";
import { Tail, leftIn } from "./tail.js";
import { LEVELS } from "./words.js";

export const timeline = new Tail(byId("timeline"), entryOf, leftIn(byId("timeline-left"), "entry"));

function entryOf({ timestamp, level, message }) {
  const from = Date.parse(shown.job?.started ?? shown.job?.created ?? timestamp);
  const offset = Math.max(0, Date.parse(timestamp) - from) / 1000;
  return element(
    "li",
    { class: LEVELS[level] === undefined ? "info" : level },
    timeOf(timestamp, `+${duration(offset)}`),
    element("span", { class: "level" }, LEVELS[level] ?? level),
    element("span", { class: "text" }, shortened(message, LINE_CHARS)),
  );
}

// The words of an event in a log, as the bridge itself writes it.
function readEvent(name, { status, message = "", error = "", ok }) {
  if (name === "error") return { level: "failure", message: error };
  if (name === "complete") return { level: ok ? "success" : "failure", message };
  if (status === "failed") return { level: "warning", message: message.includes(error) ? message : `${message}: ${error}` };
  return { level: status === "completed" ? "success" : "info", message };
}

// Tells the events that a log has from those that came after it: a stream begins at the first event of its job,
// and the log, which has the times that events have not, may have the last ones only.
class Behind {
  #wanted;
  #last = [];
  #isMet;
  // A log that does not match must not keep the stream from being seen.
  #patience = performance.now() + 10_000;

  constructor(entries) {
    this.#wanted = entries.map(({ message }) => message);
    this.#isMet = entries.length === 0;
  }

  isNew(message) {
    if (this.#isMet || performance.now() > this.#patience) return true;
    this.#last.push(message);
    if (this.#last.length > this.#wanted.length) this.#last.shift();
    this.#isMet = this.#last.length === this.#wanted.length && this.#last.every((said, at) => said === this.#wanted[at]);
    return false;
  }
}

// Goes on with the log of a job while it runs. `reload` is how all of it is asked for again.
export function watch(job, reload) {
  unwatch();
  shown.source = null;
  if (hasEnded(job)) return;
  const source = new EventSource(jobPath(job.id, "/events"));
  const behind = new Behind(job.log_entries);
  shown.source = source;
  for (const name of ["step", "error", "complete"]) {
    source.addEventListener(name, (event) => {
      // The connection's own `error` has no data.
      if (event.data === undefined) return onWatchLost(source, reload);
      const entry = readEvent(name, JSON.parse(event.data));
      if (behind.isNew(entry.message)) timeline.push([{ ...entry, timestamp: new Date(now()).toISOString() }]);
      if (name === "complete") {
        source.close();
        reload();
      }
    });
  }
}

export function unwatch() {
  shown.source?.close();
}

function onWatchLost(source, reload) {
  if (source.readyState !== EventSource.CLOSED) return;
  setTimeout(() => shown.source === source && reload(), 2000);
}
