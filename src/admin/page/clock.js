// The clock of the bridge, and how its times are written.

import { roughly } from "./numbers.js";

// How far the clock of the bridge is ahead of ours, in milliseconds. Its times are measured with its own.
let ahead = 0;
export const now = () => Date.now() + ahead;

export function setClock(response) {
  const theirs = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds only.
  if (Number.isFinite(theirs)) ahead = Math.abs(theirs - Date.now()) < 2000 ? 0 : theirs - Date.now();
}

export const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" }).format;
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }).format;

export function ago(time) {
  const seconds = Math.floor((now() - Date.parse(time)) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return day(Date.parse(time));
}

export const since = (time) => roughly((now() - Date.parse(time)) / 1000);
export const utc = (time) => `${new Date(time).toISOString().replace("T", " ").replace("Z", "")} UTC`;
