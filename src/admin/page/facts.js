// Facts: lists of names and values, such as everything else that is known about one job.

import { moment } from "./clock.js";
import { element, fill } from "./elements.js";
import { bytes, count, duration, many } from "./numbers.js";
import { elapsedOf, timeOf } from "./signs.js";
import { backendName, hasEnded } from "./state.js";
import { channel } from "./words.js";

export function factsOf(job) {
  const at = (time) => (time === null ? null : timeOf(time, moment(Date.parse(time))));
  const name = backendName(job.backend);
  const { fingerprint, address } = job.who;
  return [
    ["Id", element("code", {}, job.id)],
    ["Backend", name === job.backend ? name : `${name} (${job.backend})`],
    ["Driven over", job.channels.length === 0 ? null : job.channels.map(channel).join(", ")],
    ["Dialect", job.dialect],
    ["Asked for", at(job.created)],
    ["By", [job.user, address].filter((part) => part !== null).join(", from ") || null],
    ["Key", fingerprint === null ? null : element("code", {}, fingerprint)],
    ["Query", job.query === "" ? null : element("code", {}, job.query)],
    ["Started", at(job.started)],
    ["Ended", at(job.completed)],
    ["Took", tookOf(job)],
    ["First event after", job.first_frame_seconds === null ? null : duration(job.first_frame_seconds)],
    ["From the backend", `${many(job.frames_in, "event")}, ${bytes(job.bytes_in)}`],
    ["To readers", `${many(job.frames_out, "event")}, ${bytes(job.bytes_out)}`],
    ["Readers", `${count(job.watchers)} at most, ${count(job.attaches)} came later`],
  ];
}

function tookOf(job) {
  if (job.duration_seconds !== null) return duration(job.duration_seconds);
  return job.started === null || hasEnded(job) ? null : elapsedOf(job.started);
}

// Writes only what has changed, so that a text that somebody selects stays selected.
export function drawFacts(list, facts) {
  const known = new Map([...list.children].map((row) => [row.firstElementChild.textContent, row]));
  const rows = facts.filter(([, value]) => value !== null).map(([name, value]) => {
    const row = known.get(name) ?? element("div", {}, element("dt", {}, name), element("dd"));
    const fact = element("span", {}, value);
    if (row.lastElementChild.textContent !== fact.textContent) row.lastElementChild.replaceChildren(...fact.childNodes);
    return row;
  });
  fill(list, rows);
}
