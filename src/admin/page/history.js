// Jobs that have ended.

import { ask, jobPath, showProblem } from "./api.js";
import { notesOn, total } from "./bars.js";
import { byId, element, fill, later, setText } from "./elements.js";
import { filters, written } from "./filters.js";
import { count, duration } from "./numbers.js";
import { agoOf, statusOf } from "./signs.js";
import { backendName, hasEnded, told } from "./state.js";
import { title } from "./words.js";

// How many jobs of the history are asked for at once; the bridge gives no more than the second number.
const PAGE = 25;
const MOST = 200;

const history = { jobs: [], next: null, rows: new Map(), ticket: 0 };

export async function loadHistory() {
  const size = Math.min(MOST, Math.max(PAGE, history.jobs.length));
  const query = new URLSearchParams(filters.query);
  query.set("limit", size);
  await loadPage(`/jobs?${written(query)}`, (page) => (history.jobs = page));
}

export async function loadMore() {
  byId("more").disabled = true;
  await loadPage(history.next, (page) => history.jobs.push(...page));
  byId("more").disabled = false;
}

async function loadPage(path, take) {
  const ticket = ++history.ticket;
  try {
    const page = await ask(path);
    // Another filter was chosen meanwhile.
    if (ticket !== history.ticket) return;
    take(page.results.filter(hasEnded));
    history.next = page.next;
    byId("history-problem").hidden = page.warning === undefined;
    if (page.warning !== undefined) {
      byId("history-problem").replaceChildren(element("p", { class: "notice warn" }, page.warning));
    }
  } catch (problem) {
    if (ticket !== history.ticket) return;
    // What is there is better than nothing while the bridge is away.
    if (problem.status !== 0) Object.assign(history, { jobs: [], next: null });
    showProblem(byId("history-problem"), problem);
  }
  later(drawHistory);
}

// Ids of jobs are in the order in which they began, as the history is.
export function noteEnded(job) {
  if (!isWanted(job) || history.jobs.some((known) => known.id === job.id)) return;
  const at = history.jobs.findIndex((known) => known.id < job.id);
  // Behind the last one is where the next page goes on.
  if (at < 0 && history.next !== null) return;
  history.jobs.splice(at < 0 ? history.jobs.length : at, 0, job);
  later(drawHistory);
}

function isWanted(job) {
  const { query } = filters;
  const fits = (name) => !query.has(name) || query.get(name) === job[name];
  return fits("kind") && fits("outcome") && fits("backend");
}

export function drawHistory() {
  const rows = history.jobs.map((job) => history.rows.get(job.id) ?? newRow(job));
  history.rows = new Map(history.jobs.map((job, at) => [job.id, rows[at]]));
  fill(byId("history"), rows);
  byId("more").hidden = history.next === null;
  byId("history-none").hidden = rows.length > 0;
  const none = filters.query.size === 0 ? "No sync has ended yet." : "No sync of this sort has ended.";
  setText(byId("history-none"), history.next === null ? none : "None on this page; there are older ones.");
}

function newRow(job) {
  const link = element("a", { href: `#${jobPath(job.id)}` }, title(job));
  const about = [told.backends.length > 1 ? backendName(job.backend) : null, job.user].filter((part) => part !== null);
  const what = [
    link,
    about.length === 0 ? null : element("span", { class: "about" }, about.join(" · ")),
    job.message === null ? null : element("span", { class: "why" }, job.message),
  ];
  const cell = (name, ...children) => element("td", { role: "cell", class: name }, ...children);
  return element(
    "tr",
    { role: "row" },
    cell("is", statusOf(job)),
    cell("what", ...what),
    cell("objects", ...objectsOf(job)),
    cell("took", job.duration_seconds === null ? "–" : duration(job.duration_seconds)),
    cell("when", agoOf(job.created)),
  );
}

// What a row says of its backend depends on how many there are.
export const forgetRows = () => history.rows.clear();

function objectsOf(job) {
  const { seen, completed, failed, unconfirmed } = total(job.data.counts);
  if (seen === 0) return ["–"];
  const notes = notesOn({ failed, unconfirmed });
  const note = notes === "" ? null : element("span", { class: failed > 0 ? "notes bad" : "notes" }, notes);
  return [`${count(completed)} of ${count(seen)}`, note];
}
