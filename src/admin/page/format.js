// Numbers, times and statuses as text or elements.

import { element, setText } from "./dom.js";
import { displayStatus, label } from "./labels.js";

// The longest text of a backend or client that is shown, in characters.
export const MAX_LINE_CHARS = 4000;

export const count = new Intl.NumberFormat("en").format;
export const plural = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${plural(Math.floor(whole / 86_400), "day")} ${Math.floor((whole % 86_400) / 3600)} h`;
}

export function bytes(number) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = number < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(number) / 10));
  return power === 0 ? plural(number, "byte") : `${(number / 1024 ** power).toFixed(1)} ${units[power]}`;
}

export function truncate(text, length) {
  return text.length <= length ? text : `${text.slice(0, length)}… (${count(text.length - length)} more characters)`;
}

// How far the clock of the bridge is ahead of the browser's, in milliseconds. Job times are on the bridge's clock.
let clockOffset = 0;
// When the last response or event was received, and when the clock was stopped, on the clock of the bridge.
let heardAt = Date.now();
let stoppedAt = null;
export const now = () => stoppedAt ?? Date.now() + clockOffset;

// While there is no connection, times stay those of the data shown.
export const stopClock = () => (stoppedAt ??= heardAt);
export const startClock = () => (stoppedAt = null);
export const heard = () => (heardAt = Date.now() + clockOffset);

export function setClock(response) {
  const date = Date.parse(response.headers.get("date") ?? "");
  // The `Date` header has a resolution of one second.
  if (Number.isFinite(date)) clockOffset = Math.abs(date - Date.now()) < 2000 ? 0 : date - Date.now();
  heard();
}

const dateTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" }).format;
export const shortDateTime = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }).format;

const timeFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" }).format;
export const timeOfDay = () => timeFormat(now());

function ago(time) {
  const seconds = Math.floor((now() - Date.parse(time)) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return shortDateTime(Date.parse(time));
}

// In whole seconds: the text is updated every second.
function elapsed(time) {
  const seconds = Math.max(1, Math.floor((now() - Date.parse(time)) / 1000));
  return seconds < 60 ? `${seconds} s` : duration(seconds);
}

// `text` with the exact time as its tooltip.
export function timeElement(time, text, attributes = {}) {
  const utc = `${new Date(time).toISOString().replace("T", " ").replace("Z", "")} UTC`;
  return element("time", { datetime: time, title: utc, ...attributes }, text);
}

export const dateTimeElement = (time) => timeElement(time, dateTime(Date.parse(time)));
// `updateTimes` keeps the text of these two current.
export const agoElement = (time) => timeElement(time, ago(time), { "data-ago": "" });
export const elapsedElement = (time) => timeElement(time, elapsed(time), { "data-elapsed": "" });

export function updateTimes() {
  for (const node of document.querySelectorAll("time[data-ago]")) setText(node, ago(node.dateTime));
  for (const node of document.querySelectorAll("time[data-elapsed]")) setText(node, elapsed(node.dateTime));
}

// The status of a job in words.
export function statusText(job) {
  const status = displayStatus(job);
  return status === "completed_unconfirmed" ? `Completed, ${count(job.unconfirmed_total)} unconfirmed` : label(status);
}

export function statusElement(job) {
  return element("span", { class: `status ${displayStatus(job)}` }, statusText(job));
}

export function drawStatus(place, job) {
  // Replacing an unchanged status would restart its animation.
  if (place.textContent !== statusText(job)) place.replaceChildren(statusElement(job));
}
