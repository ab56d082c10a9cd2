// Signs that are in several places: times, and how a job stands.

import { ago, since, utc } from "./clock.js";
import { element, setText } from "./elements.js";
import { standing, words } from "./words.js";

// A time for people, with the exact one behind it. With a way to say it that changes as time goes by, `tick`
// says it again.
export function timeOf(time, text, ticks = {}) {
  return element("time", { datetime: time, title: utc(time), ...ticks }, text);
}

export const agoOf = (time) => timeOf(time, ago(time), { "data-ago": "" });
export const elapsedOf = (time) => timeOf(time, since(time), { "data-elapsed": "" });

export function tick() {
  for (const node of document.querySelectorAll("time[data-ago]")) setText(node, ago(node.dateTime));
  for (const node of document.querySelectorAll("time[data-elapsed]")) setText(node, since(node.dateTime));
}

export function statusOf(job) {
  const word = standing(job);
  return element("span", { class: `status ${word}` }, words(word));
}

export function drawStatus(place, job) {
  // As long as it is the same one, its ring goes on turning.
  if (place.textContent !== words(standing(job))) place.replaceChildren(statusOf(job));
}
