// The live page of the admin listener. It stands on the API that /openapi.json describes and on nothing else.
//
// What backends and clients say is hostile until proven otherwise, names of virtual machines above all. It gets
// into the page as text alone (`append` and `textContent`), and into addresses through `encodeURIComponent` alone.

// How many lines of a log are in the page at once, and how much of one.
const LINES = 500;
const LINE_CHARS = 4000;
const FAILED_ROWS = 500;
// How many jobs of the history are asked for at once; the bridge gives no more than the second number.
const PAGE = 25;
const MOST = 200;
// How often the backends are asked about, in milliseconds. The same request notices a dead connection that
// EventSource takes for a quiet one.
const POLL = 15_000;
const PATIENCE = 20_000;

const byId = (id) => document.getElementById(id);

// --- words ----------------------------------------------------------------------------------------

const OBJECTS = {
  device: "Devices",
  storage: "Storages",
  virtual_machine: "Virtual machines",
  virtual_disk: "Virtual disks",
  backup: "Backups",
  snapshot: "Snapshots",
  node_interface: "Node interfaces",
  interface: "Interfaces",
  vm_interface: "VM interfaces",
  vm_ip: "VM IP addresses",
  task_history: "Task histories",
  replication: "Replications",
  backup_routine: "Backup routines",
  sdn: "SDN objects",
  other: "Other objects",
};

const CHANNELS = { native: "stream", websocket: "/ws", json: "plain JSON" };

const LEVELS = { info: "Info", success: "Success", warning: "Warning", failure: "Failure" };

// What an operator can do about it, where the message of the job does not say.
const HINTS = {
  backend_failed: "The backend ran the sync and calls it failed. Its own log says more.",
  objects_failed: "The backend ran to its end, and the objects failed. See each one's error below.",
  backend_lost: "The backend broke the connection off. See whether it still runs, and what its log says.",
  backend_nonsense: "What the backend sent cannot be read. Its raw messages are below.",
  unreachable: "See whether the backend runs and whether this machine reaches it: proxbox-bridge check.",
  key_refused: "Start it again with the API key of the backend, or give the bridge one: backend.api_key_file.",
  refused: "The backend took the request and refused it. Its own log says more.",
  unsupported: "This backend has no way to do that. “Backends” lists what it can do.",
  idle: "The backend said nothing for too long (limits.idle). See whether it hangs.",
  total: "It took longer than it may (limits.total).",
  stopping: "The bridge was stopped before the sync was done. Start it again.",
  client_gone: "Whoever asked for it left and did not come back (jobs.on_disconnect). What is started here goes on.",
  busy: "Too many syncs wait already (backend.queue). Try again when they are done.",
  unrecorded: "The record of jobs cannot be written, and nothing may run without one (jobs.without_ledger).",
  crashed: "The bridge ended in the middle of it. How far the backend went is not known; start it again.",
};

const SOURCES = { backend: "the backend", client: "a client", bridge: "the bridge" };

const count = new Intl.NumberFormat("en").format;
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" }).format;
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }).format;

// "ip-addresses" → "IP addresses"
const phrase = (name) => name.replace(/[-_]/g, " ").replace(/\b(vm|ip|sdn)\b/g, (word) => word.toUpperCase());

function words(name) {
  const text = phrase(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;
const objects = (name) => OBJECTS[name] ?? words(name);
const channel = (name) => CHANNELS[name] ?? name;
const over = (names) => names.map((name) => (name === "native" ? "its stream" : channel(name))).join(" and ");
const title = (job) => (job.vm === null ? words(job.kind) : `${words(job.kind)} of VM ${job.vm}`);

function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${many(Math.floor(whole / 86_400), "day")} ${Math.floor((whole % 86_400) / 3600)} h`;
}

// Roughly, for what goes on and would otherwise flicker.
function roughly(seconds) {
  return duration(seconds < 60 ? Math.max(1, Math.floor(seconds)) : seconds).replace(/\.0 s$/, " s");
}

function bytes(number) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = number < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(number) / 10));
  return power === 0 ? many(number, "byte") : `${(number / 1024 ** power).toFixed(1)} ${units[power]}`;
}

function ago(time) {
  const seconds = Math.floor((now() - Date.parse(time)) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return day(Date.parse(time));
}

const utc = (time) => `${new Date(time).toISOString().replace("T", " ").replace("Z", "")} UTC`;

function shortened(text, most) {
  return text.length <= most ? text : `${text.slice(0, most)}… (${count(text.length - most)} characters more)`;
}

// Where a job is, in one word: how it ended where NetBox's word would say less.
function standing(job) {
  return ["cancelled", "timed_out", "interrupted"].includes(job.outcome) ? job.outcome : job.status;
}

// --- elements -------------------------------------------------------------------------------------

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

// A time for people, with the exact one behind it. With a way to say it that changes as time goes by, `tick`
// says it again.
function timeOf(time, text, ticks = {}) {
  return element("time", { datetime: time, title: utc(time), ...ticks }, text);
}

const agoOf = (time) => timeOf(time, ago(time), { "data-ago": "" });
const since = (time) => roughly((now() - Date.parse(time)) / 1000);
const elapsedOf = (time) => timeOf(time, since(time), { "data-elapsed": "" });

function statusOf(job) {
  const word = standing(job);
  return element("span", { class: `status ${word}` }, words(word));
}

function drawStatus(place, job) {
  // As long as it is the same one, its ring goes on turning.
  if (place.textContent !== words(standing(job))) place.replaceChildren(statusOf(job));
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Makes `nodes` the children of `parent`, and keeps the focus on one of them that has it.
function fill(parent, nodes) {
  if (nodes.length === parent.children.length && nodes.every((node, at) => node === parent.children[at])) return;
  const focused = document.activeElement;
  parent.replaceChildren(...nodes);
  if (focused?.isConnected && parent.contains(focused)) focused.focus({ preventScroll: true });
}

// Draws once before the next picture, however often it is asked to: events come faster than pictures.
const drawings = new Set();
function later(draw) {
  if (drawings.size === 0) requestAnimationFrame(drawAll);
  drawings.add(draw);
}

function drawAll() {
  const due = [...drawings];
  drawings.clear();
  for (const draw of due) draw();
}

function tick() {
  for (const node of document.querySelectorAll("time[data-ago]")) setText(node, ago(node.dateTime));
  for (const node of document.querySelectorAll("time[data-elapsed]")) setText(node, since(node.dateTime));
}

// Tells those who do not see the page what has happened.
function say(text) {
  byId("said").textContent = text;
}

// --- asking ---------------------------------------------------------------------------------------

// Why something could not be had.
class Problem extends Error {
  constructor(status, message, detail = "", retryAfter = null) {
    super(message);
    Object.assign(this, { status, detail, retryAfter });
  }
}

// How far the clock of the bridge is ahead of ours, in milliseconds. Its times are measured with its own.
let ahead = 0;
const now = () => Date.now() + ahead;

function setClock(response) {
  const theirs = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds only.
  if (Number.isFinite(theirs)) ahead = Math.abs(theirs - Date.now()) < 2000 ? 0 : theirs - Date.now();
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted && error.name === "AbortError") throw error;
    throw new Problem(0, "The bridge does not answer.", "See whether it runs and whether this machine reaches it.");
  }
  setClock(response);
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const message = said.message ?? said.reason ?? `The bridge answers ${response.status}.`;
  return new Problem(response.status, message, said.detail ?? "", response.headers.get("retry-after"));
}

async function ask(path, options = {}) {
  const response = await request(path, { signal: AbortSignal.timeout(PATIENCE), ...options });
  return response.status === 204 ? null : response.json();
}

const jobPath = (id, rest = "") => `/jobs/${encodeURIComponent(id)}${rest}`;

// What is to be done about it, as far as the status tells.
function adviceOn(problem) {
  if (problem.status === 401) {
    return element("p", {}, element("a", { href: "/session" }, "Sign in"), " and try again.");
  }
  const wait = Number(problem.retryAfter);
  if (wait > 0) return element("p", {}, `Try again in ${duration(wait)}.`);
  return problem.status === 0 ? element("p", {}, "It is asked again when the connection is back.") : null;
}

function accountOf(problem) {
  if (!(problem instanceof Problem)) throw problem;
  const detail = problem.detail === "" ? null : element("p", { class: "said" }, problem.detail);
  return [element("p", {}, element("strong", {}, problem.message)), detail, adviceOn(problem)].filter(Boolean);
}

function showProblem(place, problem) {
  place.replaceChildren(element("div", { class: "notice bad" }, ...accountOf(problem)));
  place.hidden = false;
}

// A problem with something that was asked for from anywhere in the page.
function complain(problem) {
  byId("problem-text").replaceChildren(...accountOf(problem));
  byId("problem").hidden = false;
}

// --- what is known --------------------------------------------------------------------------------

// What the bridge says of itself, and the backends, as they were last told.
let bridge = null;
let backends = [];
// The jobs that have not ended, by id.
const jobs = new Map();
// Jobs that were started here, until they have ended, and jobs that were asked to end.
const mine = new Set();
const cancelling = new Set();

const hasEnded = (job) => job.completed !== null;

function backendName(url) {
  return backends.find((backend) => backend.url === url)?.name ?? url;
}

// --- live events ----------------------------------------------------------------------------------

// `isFresh`: nothing was told on this connection yet. `pause`: how long until another one is made.
const live = { source: null, isFresh: true, isLost: false, retry: null, pause: 1000 };

function connect() {
  clearTimeout(live.retry);
  live.source?.close();
  const source = new EventSource("/events");
  Object.assign(live, { source, isFresh: true });
  source.addEventListener("bridge", (event) => onBridge(JSON.parse(event.data)));
  source.addEventListener("job", (event) => onJob(JSON.parse(event.data)));
  source.addEventListener("error", () => onLost(source));
}

function disconnect() {
  clearTimeout(live.retry);
  live.source?.close();
}

function onLost(source) {
  Object.assign(live, { isFresh: true, isLost: true });
  later(drawConnection);
  if (source.readyState !== EventSource.CLOSED) return;
  // The browser has given up, as it does when the answer is an error, or at once in some browsers.
  live.retry = setTimeout(connect, live.pause);
  live.pause = Math.min(live.pause * 2, 10_000);
  ask("/backends").catch((problem) => problem.status === 401 && complain(problem));
}

function onBridge(said) {
  const before = bridge;
  const isFresh = live.isFresh || before?.instance !== said.instance;
  bridge = said;
  if (live.isLost) say("Connected to the bridge again.");
  Object.assign(live, { isFresh: false, isLost: false, pause: 1000 });
  if (before !== null && before.version !== said.version) offerReload(said.version);
  later(drawConnection);
  later(drawBridge);
  if (isFresh) renew();
}

// Asks for everything again: what happened while there was no connection is told by no event.
function renew() {
  for (const id of jobs.keys()) recheck(id);
  loadBackends();
  if (shown.id === null) loadHistory();
  else loadJob();
}

async function recheck(id) {
  try {
    onJob(await ask(jobPath(id)));
  } catch (problem) {
    // Nobody knows it any more. Anything else is asked again with the next connection.
    if (problem.status === 404) forget(id);
  }
}

function forget(id) {
  jobs.delete(id);
  mine.delete(id);
  cancelling.delete(id);
  later(drawRunning);
}

function onJob(job) {
  const before = jobs.get(job.id);
  if (hasEnded(job)) {
    if (mine.has(job.id) || cancelling.has(job.id)) say(`${title(job)}: ${words(standing(job))}.`);
    forget(job.id);
    noteEnded(job);
  } else {
    jobs.set(job.id, job);
    later(drawRunning);
  }
  if (before?.status !== job.status) loadBackendsSoon();
  if (job.id === shown.id) onShown(job);
}

// --- notices --------------------------------------------------------------------------------------

const LOST = "The connection to the bridge is lost. Trying again… What is shown may be out of date.";

function drawConnection() {
  setText(byId("connection"), live.isLost ? LOST : "");
  byId("connection").hidden = !live.isLost;
}

function offerReload(version) {
  byId("newer-text").textContent = `The bridge is version ${version} now; this page is of the one before.`;
  byId("newer").hidden = false;
}

function drawBridge() {
  const state = bridge.draining ? "draining" : bridge.ready ? "ready" : "unready";
  const label = { draining: "Stopping", ready: "Ready", unready: "Not ready" }[state];
  byId("bridge").replaceChildren(
    element("span", { class: `status ${state}` }, label),
    element("span", { class: "version" }, `Version ${bridge.version}, up `, elapsedOf(bridge.started)),
  );
  byId("start").hidden = !bridge.can_act;
  byId("sign-in").hidden = bridge.can_act || bridge.signed_in;
  byId("sign-out").hidden = !bridge.signed_in;
  drawReasons();
  drawRunning();
  if (shown.job !== null) drawJob();
}

function drawReasons() {
  const reasons = bridge === null || bridge.ready ? [] : bridge.reasons;
  const down = backends.filter((backend) => backend.up === false);
  const lines = [
    ...reasons.map((reason) => `Not ready: ${reason}`),
    ...down.map(({ name, problem }) => `Backend ${name} cannot be reached${problem === null ? "." : `: ${problem}`}`),
  ];
  const before = byId("reasons").textContent;
  if (before === lines.join("")) return;
  byId("reasons").replaceChildren(...lines.map((line) => element("p", {}, line)));
  byId("reasons").hidden = lines.length === 0;
}

// --- bars -----------------------------------------------------------------------------------------

// One bar for each sort of objects of a job. They stay the same elements, so that they move.
class Bars {
  #place;
  #rows = new Map();

  constructor(place) {
    this.#place = place;
  }

  clear() {
    this.#rows.clear();
    this.#place.replaceChildren();
  }

  draw(job) {
    const counts = Object.entries(job.data.counts);
    const isUnknown = counts.length === 0 && job.status === "running";
    const wanted = isUnknown ? [["", null]] : counts;
    const rows = wanted.map(([name, numbers]) => {
      const row = this.#rows.get(name) ?? newBar(name, job);
      this.#rows.set(name, row);
      drawBar(row, numbers, hasEnded(job));
      return row.node;
    });
    fill(this.#place, rows);
  }
}

function newBar(name, job) {
  const label = name === "" ? "Waiting for the first object" : objects(name);
  const progress = element("progress", { "aria-label": `${label}, ${title(job)}` });
  const numbers = element("span", { class: "numbers" });
  const notes = element("span", { class: "notes" });
  const node = element("div", { class: "bar" }, element("span", { class: "name" }, label), progress, numbers, notes);
  return { node, progress, numbers, notes };
}

function drawBar({ progress, numbers, notes }, counted, ended) {
  // Nothing is counted yet: how long it will be is not known.
  if (counted === null) return;
  const { seen, completed, failed, unconfirmed } = counted;
  progress.max = Math.max(seen, 1);
  progress.value = completed + failed;
  progress.style.setProperty("--failed", `${failed === 0 ? 0 : (100 * failed) / progress.value}%`);
  setText(numbers, `${count(completed + failed)} of ${count(seen)}`);
  const text = notesOn({ failed, unconfirmed: ended ? unconfirmed : 0 });
  setText(notes, text);
  notes.classList.toggle("bad", failed > 0);
}

function notesOn({ failed, unconfirmed }) {
  const notes = [failed > 0 && `${count(failed)} failed`, unconfirmed > 0 && `${count(unconfirmed)} unconfirmed`];
  return notes.filter(Boolean).join(", ");
}

function total(counts) {
  const sum = { seen: 0, completed: 0, failed: 0, unconfirmed: 0 };
  for (const counted of Object.values(counts)) {
    for (const name of Object.keys(sum)) sum[name] += counted[name];
  }
  return sum;
}

// --- running --------------------------------------------------------------------------------------

const cards = new Map();

function drawRunning() {
  const ids = [...jobs.keys()].sort();
  const list = byId("running");
  const hadFocus = list.contains(document.activeElement);
  for (const id of cards.keys()) {
    if (!jobs.has(id)) cards.delete(id);
  }
  const drawn = ids.map((id) => {
    const card = cards.get(id) ?? newCard(id);
    cards.set(id, card);
    drawCard(card, jobs.get(id));
    return card.node;
  });
  fill(list, drawn);
  // The card that had it is gone with its job.
  if (hadFocus && !list.contains(document.activeElement)) byId("running-title").focus({ preventScroll: true });
  setText(byId("running-count"), ids.length === 0 ? "" : count(ids.length));
  byId("running-none").hidden = ids.length > 0;
  drawTitle();
}

function newCard(id) {
  const job = jobs.get(id);
  const status = element("span");
  const cancel = cancelButton(job);
  const about = element("p", { class: "about" });
  const bars = element("div", { class: "bars" });
  const link = element("a", { href: `#${jobPath(id)}` }, title(job));
  const names = element("div", { class: "names" }, element("h3", {}, link), status);
  const head = element("div", { class: "title" }, names, cancel);
  return { node: element("li", { class: "card" }, head, about, bars), status, about, cancel, bars: new Bars(bars) };
}

function cancelButton(job) {
  const button = element("button", { type: "button", class: "danger quiet", "aria-label": `Cancel ${title(job)}` }, "Cancel");
  button.addEventListener("click", () => confirmCancel(job));
  return button;
}

function drawCard(card, job) {
  drawStatus(card.status, job);
  drawCancel(card.cancel, job);
  const parts = [
    backends.length > 1 ? `on ${backendName(job.backend)}` : null,
    job.channels.length > 0 ? `over ${over(job.channels)}` : null,
    job.user === null ? null : `for ${job.user}`,
  ];
  const text = parts.filter((part) => part !== null).map((part) => `, ${part}`);
  const time =
    job.started === null
      ? ["Waits for its turn on the backend for ", elapsedOf(job.created)]
      : ["Runs for ", elapsedOf(job.started)];
  card.about.replaceChildren(...time, ...text);
  card.bars.draw(job);
}

function drawCancel(button, job) {
  button.hidden = !bridge?.can_act || hasEnded(job);
  button.disabled = cancelling.has(job.id);
  setText(button, button.disabled ? "Cancelling…" : "Cancel");
}

function drawTitle() {
  const about = shown.job === null ? null : `${title(shown.job)}: ${phrase(standing(shown.job))}`;
  const busy = jobs.size === 0 ? null : `${count(jobs.size)} running`;
  document.title = [shown.id === null ? busy : about, "proxbox-bridge"].filter((part) => part !== null).join(" – ");
}

// --- history --------------------------------------------------------------------------------------

const FILTERS = ["kind", "outcome", "backend", "since"];

const history = { query: new URLSearchParams(), jobs: [], next: null, rows: new Map(), ticket: 0 };

function setFilters(query) {
  history.query = new URLSearchParams();
  for (const name of FILTERS) {
    const value = query.get(name) ?? "";
    const select = byId("filters").elements[name];
    // One that a link has and the list has not: the bridge says whether it understands it.
    if (![...select.options].some((option) => option.value === value)) select.append(new Option(value, value));
    select.value = value;
    if (value !== "") history.query.set(name, value);
  }
  byId("filter-backend").hidden = backends.length < 2 && !history.query.has("backend");
  byId("filters-clear").hidden = history.query.size === 0;
}

function readFilters() {
  const query = new URLSearchParams();
  for (const name of FILTERS) {
    const { value } = byId("filters").elements[name];
    if (value !== "") query.set(name, value);
  }
  location.hash = homeHash(query);
}

const homeHash = (query) => (query.size === 0 ? "#/" : `#/?${written(query)}`);

// As the bridge reads it: a plus is a plus there, and no space.
function written(query) {
  return [...query].map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
}

async function loadHistory() {
  const size = Math.min(MOST, Math.max(PAGE, history.jobs.length));
  const query = new URLSearchParams(history.query);
  query.set("limit", size);
  await loadPage(`/jobs?${written(query)}`, (page) => (history.jobs = page));
}

async function loadMore() {
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
function noteEnded(job) {
  if (!isWanted(job) || history.jobs.some((known) => known.id === job.id)) return;
  const at = history.jobs.findIndex((known) => known.id < job.id);
  // Behind the last one is where the next page goes on.
  if (at < 0 && history.next !== null) return;
  history.jobs.splice(at < 0 ? history.jobs.length : at, 0, job);
  later(drawHistory);
}

function isWanted(job) {
  const { query } = history;
  const fits = (name) => !query.has(name) || query.get(name) === job[name];
  return fits("kind") && fits("outcome") && fits("backend");
}

function drawHistory() {
  const rows = history.jobs.map((job) => history.rows.get(job.id) ?? newRow(job));
  history.rows = new Map(history.jobs.map((job, at) => [job.id, rows[at]]));
  fill(byId("history"), rows);
  byId("more").hidden = history.next === null;
  byId("history-none").hidden = rows.length > 0;
  const none = history.query.size === 0 ? "No sync has ended yet." : "No sync of this sort has ended.";
  setText(byId("history-none"), history.next === null ? none : "None on this page; there are older ones.");
}

function newRow(job) {
  const link = element("a", { href: `#${jobPath(job.id)}` }, title(job));
  const about = [backends.length > 1 ? backendName(job.backend) : null, job.user].filter((part) => part !== null);
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

function objectsOf(job) {
  const { seen, completed, failed, unconfirmed } = total(job.data.counts);
  if (seen === 0) return ["–"];
  const notes = notesOn({ failed, unconfirmed });
  const note = notes === "" ? null : element("span", { class: failed > 0 ? "notes bad" : "notes" }, notes);
  return [`${count(completed)} of ${count(seen)}`, note];
}

// --- backends -------------------------------------------------------------------------------------

const UP = {
  true: ["up", "Answers"],
  false: ["down", "Does not answer"],
  null: ["unknown", "Not asked yet"],
};
const CIRCUITS = {
  open: "It is left alone for a while, and requests are answered 503 at once.",
  half_open: "One request is trying whether it answers again.",
};

const backendParts = new Map();
let backendsDue = null;

// Several jobs may begin and end at once.
function loadBackendsSoon() {
  backendsDue ??= setTimeout(loadBackends, 300);
}

async function loadBackends() {
  clearTimeout(backendsDue);
  backendsDue = null;
  try {
    const { results } = await ask("/backends");
    const wereSeveral = backends.length > 1;
    backends = results;
    byId("backends-problem").hidden = true;
    if (wereSeveral !== backends.length > 1) history.rows.clear();
    later(drawBackends);
  } catch (problem) {
    showProblem(byId("backends-problem"), problem);
    // EventSource may not know: a machine that went away without a word leaves its connections open.
    if (problem.status === 0 && live.source?.readyState === EventSource.OPEN) connect();
  }
}

function drawBackends() {
  const nodes = backends.map((backend) => {
    const parts = backendParts.get(backend.name) ?? newBackend();
    backendParts.set(backend.name, parts);
    drawBackend(parts, backend);
    return parts.node;
  });
  fill(byId("backends"), nodes);
  offerChoices();
  drawReasons();
  drawRunning();
  drawHistory();
}

function newBackend() {
  const head = element("div", { class: "title" });
  const url = element("p", { class: "url" });
  const text = element("p", { class: "about" });
  const problem = element("p", { class: "said" });
  const facts = element("dl");
  const kinds = element("ul", { class: "kinds" });
  const details = element("details", {}, element("summary", {}, "What each kind will use"), kinds);
  // On a phone, fourteen lines for each backend would hide the rest.
  details.open = matchMedia("(min-width: 48rem)").matches;
  return { node: element("li", { class: "card" }, head, url, problem, text, facts, details), head, url, text, problem, facts, kinds };
}

function drawBackend(parts, backend) {
  const [state, label] = UP[backend.up];
  parts.head.replaceChildren(
    element("h3", {}, backend.name),
    element("span", { class: `status ${state}` }, label),
  );
  setText(parts.url, backend.url);
  setText(parts.problem, backend.problem ?? "");
  // What is wrong with one that answers keeps it from nothing.
  parts.problem.classList.toggle("bad", backend.up === false);
  parts.problem.hidden = backend.problem === null;
  setText(parts.text, CIRCUITS[backend.circuit] ?? "");
  parts.text.hidden = !(backend.circuit in CIRCUITS);
  drawFacts(parts.facts, [
    ["Version", backend.version ?? "not known yet"],
    ["Dialect", backend.dialect ?? "not known yet"],
    ["Channel", backend.channel],
    ["Running", `${count(backend.running)} of ${count(backend.concurrency)}`],
    ["Waiting", `${count(backend.waiting)} of ${count(backend.queue)}`],
  ]);
  parts.kinds.replaceChildren(...backend.kinds.filter(({ known }) => known).map(kindOf), ...unknownOf(backend.kinds));
}

function kindOf(kind) {
  const [state, label] = kind.channel === null ? ["cannot", "not possible"] : ["can", channel(kind.channel)];
  const without = kind.without.length === 0 ? null : element("span", { class: "without" }, `without ${namesOf(kind.without)}`);
  return element("li", { class: state }, element("span", {}, words(kind.kind)), element("b", {}, label), without);
}

// Kinds of which the backend is asked when the next sync of them begins.
function unknownOf(kinds) {
  const unknown = kinds.filter(({ known }) => !known).map(({ kind }) => kind);
  if (unknown.length === 0) return [];
  const which = unknown.length === kinds.length ? "the backend is asked before the next sync" : namesOf(unknown);
  return [element("li", { class: "unknown" }, element("span", {}, `Not known yet: ${which}.`))];
}

const namesOf = (kinds) => kinds.map(phrase).join(", ");

// What can be chosen in the filters: what the backends have.
function offerChoices() {
  const kinds = new Set(backends.flatMap((backend) => backend.kinds.map(({ kind }) => kind)));
  const { kind, backend } = byId("filters").elements;
  addOptions(kind, [...kinds].map((name) => [name, words(name)]));
  addOptions(backend, backends.map(({ url, name }) => [url, name]));
  byId("filter-backend").hidden = backends.length < 2 && !history.query.has("backend");
}

function addOptions(select, choices) {
  for (const [value, text] of choices) {
    const known = [...select.options].find((option) => option.value === value);
    if (known === undefined) select.append(new Option(text, value));
    else setText(known, text);
  }
}

// --- starting and cancelling ----------------------------------------------------------------------

const chosenBackend = () => backends.find(({ name }) => name === byId("start-form").elements.backend.value);

async function openStart() {
  byId("start-problem").hidden = true;
  if (backends.length === 0) await loadBackends();
  if (backends.length === 0) return;
  const { backend } = byId("start-form").elements;
  const before = backend.value;
  backend.replaceChildren(...backends.map(({ name }) => new Option(name, name, false, name === before)));
  byId("start-backend").hidden = backends.length < 2;
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
  const query = backends.length > 1 ? `?bridge.backend=${encodeURIComponent(chosenBackend().name)}` : "";
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

function confirmCancel(job) {
  const dialog = byId("cancel-dialog");
  byId("cancel-text").textContent = `${title(job)} on ${backendName(job.backend)}`;
  dialog.returnValue = "";
  dialog.onclose = () => dialog.returnValue === "cancel" && cancel(job.id);
  dialog.showModal();
}

async function cancel(id) {
  cancelling.add(id);
  later(drawRunning);
  later(drawJob);
  try {
    await ask(jobPath(id), { method: "DELETE" });
  } catch (problem) {
    cancelling.delete(id);
    later(drawRunning);
    later(drawJob);
    complain(problem);
  }
}

async function signOut() {
  try {
    await ask("/session", { method: "DELETE" });
    location.reload();
  } catch (problem) {
    complain(problem);
  }
}

// --- tails ----------------------------------------------------------------------------------------

// The newest lines of something that may be endless, in a box that stays at its end while it stands there.
class Tail {
  #list;
  #box;
  #make;
  #left;
  #queue = [];
  #pushed = 0;
  #show = () => this.#draw();

  // `make` makes an element of a line; `left` is told how many lines there are, and of how many.
  constructor(list, make, left) {
    this.#list = list;
    this.#box = list.parentElement;
    this.#make = make;
    this.#left = left;
  }

  clear() {
    this.#queue = [];
    this.#pushed = 0;
    this.#list.replaceChildren();
    later(this.#show);
  }

  push(lines) {
    this.#pushed += lines.length;
    this.#queue.push(...lines.slice(-LINES));
    // Of what nobody will see, no element is made.
    if (this.#queue.length > 2 * LINES) this.#queue.splice(0, this.#queue.length - LINES);
    later(this.#show);
  }

  #draw() {
    const box = this.#box;
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const lines = this.#queue.splice(0).slice(-LINES);
    if (lines.length === LINES) this.#list.replaceChildren();
    this.#list.append(...lines.map(this.#make));
    while (this.#list.childElementCount > LINES) this.#list.firstElementChild.remove();
    this.#left(this.#list.childElementCount, this.#pushed);
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }
}

// Says under a tail how much of it is there.
function leftIn(place, one) {
  return (here, all) => {
    place.hidden = here === all;
    setText(place, `The newest ${count(here)} of ${many(all, one, one === "entry" ? "entries" : `${one}s`)} are shown.`);
  };
}

// --- one job --------------------------------------------------------------------------------------

// The job that the page shows, if it shows one: `job` is null until it is known.
const shown = { id: null, job: null, source: null, ticket: 0 };
const jobBars = new Bars(byId("job-bars"));
const timeline = new Tail(byId("timeline"), entryOf, leftIn(byId("timeline-left"), "entry"));

function showJob(id) {
  closeJob();
  Object.assign(shown, { id, job: jobs.get(id) ?? null });
  byId("job-body").hidden = true;
  byId("job-problem").hidden = true;
  byId("job-status").replaceChildren();
  byId("job-cancel").hidden = true;
  setText(byId("job-title"), shown.job === null ? "Job" : title(shown.job));
  loadJob();
}

function closeJob() {
  shown.source?.close();
  shown.ticket += 1;
  Object.assign(shown, { id: null, job: null, source: null });
  jobBars.clear();
  timeline.clear();
  byId("failed-rows").replaceChildren();
  for (const raw of [byId("raw-events"), byId("raw-recording")]) raw.open = false;
}

async function loadJob() {
  const ticket = ++shown.ticket;
  try {
    const job = await ask(jobPath(shown.id));
    if (ticket !== shown.ticket) return;
    shown.job = job;
    byId("job-problem").hidden = true;
    timeline.clear();
    timeline.push(job.log_entries);
    drawJob();
    watch(job);
  } catch (problem) {
    if (ticket !== shown.ticket) return;
    showProblem(byId("job-problem"), problem);
  }
}

// Takes what an event says of the job that is shown. Its log comes another way.
function onShown(job) {
  const hadEnded = shown.job !== null && hasEnded(shown.job);
  shown.job = job;
  later(drawJob);
  // The end of the log, and the exact time of every entry.
  if (hasEnded(job) && !hadEnded) loadJob();
}

function drawJob() {
  const { job } = shown;
  if (job === null) return;
  byId("job-body").hidden = false;
  setText(byId("job-title"), title(job));
  drawStatus(byId("job-status"), job);
  drawCancel(byId("job-cancel"), job);
  jobBars.draw(job);
  byId("job-bars-none").hidden = Object.keys(job.data.counts).length > 0 || job.status === "running";
  setText(byId("job-bars-none"), hasEnded(job) ? "No object was told of." : "Waits for its turn on the backend.");
  byId("timeline-none").hidden = !hasEnded(job) || job.log_entries?.length !== 0;
  setText(byId("timeline-none"), "The log of this job is not kept any more (limits.log_retention).");
  drawFailure(job);
  drawFailed(job.data.failed_objects);
  drawFacts(byId("facts"), factsOf(job));
  byId("recording-file").href = jobPath(job.id, "/recording");
  drawTitle();
}

function drawFailure(job) {
  const { message, error, cause, source, step } = job;
  byId("job-failure").hidden = cause === null;
  if (cause === null) return;
  setText(byId("failure-title"), words(cause));
  const where = step === null ? "" : ` At: ${words(step)}.`;
  setText(byId("failure-why"), `${message ?? ""}${where} Caused by ${SOURCES[source] ?? source}.`.trim());
  setText(byId("failure-detail"), error === message ? "" : error);
  byId("failure-detail").hidden = byId("failure-detail").textContent === "";
  setText(byId("failure-hint"), HINTS[cause] ?? "");
  byId("failure-hint").hidden = !(cause in HINTS);
}

function drawFailed(failed) {
  byId("failed").hidden = failed.length === 0;
  if (byId("failed-rows").childElementCount === Math.min(failed.length, FAILED_ROWS)) return;
  const rows = failed.slice(0, FAILED_ROWS).map(({ object, error }) => {
    return element("tr", {}, element("th", { scope: "row" }, object), element("td", {}, shortened(error, LINE_CHARS)));
  });
  byId("failed-rows").replaceChildren(...rows);
  setText(byId("failed-count"), count(failed.length));
  byId("failed-left").hidden = failed.length <= FAILED_ROWS;
  setText(byId("failed-left"), `The first ${count(FAILED_ROWS)} of ${count(failed.length)} are shown.`);
}

function factsOf(job) {
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
function drawFacts(list, facts) {
  const known = new Map([...list.children].map((row) => [row.firstElementChild.textContent, row]));
  const rows = facts.filter(([, value]) => value !== null).map(([name, value]) => {
    const row = known.get(name) ?? element("div", {}, element("dt", {}, name), element("dd"));
    const fact = element("span", {}, value);
    if (row.lastElementChild.textContent !== fact.textContent) row.lastElementChild.replaceChildren(...fact.childNodes);
    return row;
  });
  fill(list, rows);
}

// --- the timeline ---------------------------------------------------------------------------------

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

// Goes on with the log of a job while it runs.
function watch(job) {
  shown.source?.close();
  shown.source = null;
  if (hasEnded(job)) return;
  const source = new EventSource(jobPath(job.id, "/events"));
  const behind = new Behind(job.log_entries);
  shown.source = source;
  for (const name of ["step", "error", "complete"]) {
    source.addEventListener(name, (event) => {
      // The connection's own `error` has no data.
      if (event.data === undefined) return onWatchLost(source);
      const entry = readEvent(name, JSON.parse(event.data));
      if (behind.isNew(entry.message)) timeline.push([{ ...entry, timestamp: new Date(now()).toISOString() }]);
      if (name === "complete") {
        source.close();
        loadJob();
      }
    });
  }
}

function onWatchLost(source) {
  if (source.readyState !== EventSource.CLOSED) return;
  setTimeout(() => shown.source === source && loadJob(), 2000);
}

// --- raw messages ---------------------------------------------------------------------------------

const rawLine = (text) => element("li", {}, shortened(text, LINE_CHARS));

// Reads into `details` while it is open. `read` gives lines to a tail until its signal is aborted.
function onOpen(details, one, read) {
  const note = details.querySelector(".left");
  const tail = new Tail(details.querySelector("ol"), rawLine, leftIn(note, one));
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
    } catch (problem) {
      if (!signal.aborted) note.before(element("div", { class: "notice" }, ...accountOf(problem)));
    }
  });
}

async function readRecording(id, tail, signal) {
  const response = await request(jobPath(id, "/recording"), { signal });
  for await (const lines of pieces(response, "\n")) tail.push(lines);
}

// A stream of events as text, types that nobody has heard of included, which EventSource would not give.
async function readEvents(id, tail, signal) {
  const seen = { id: "", isOver: false };
  while (!seen.isOver && !signal.aborted) {
    const from = seen.id === "" ? "" : `&bridge.last_event_id=${encodeURIComponent(seen.id)}`;
    const response = await request(jobPath(id, `/events?bridge.events=all${from}`), { signal }).catch((problem) => {
      // The bridge is being restarted.
      if (problem.status !== 0 || seen.id === "") throw problem;
      return null;
    });
    if (response?.status === 204) return;
    if (response !== null) await readBlocks(response, tail, seen).catch(() => {});
    if (!seen.isOver) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function readBlocks(response, tail, seen) {
  for await (const blocks of pieces(response, "\n\n")) {
    const events = blocks.filter((block) => !block.startsWith(":"));
    for (const event of events) {
      seen.id = /^id: (.*)$/m.exec(event)?.[1] ?? seen.id;
      seen.isOver ||= /^event: complete$/m.test(event);
    }
    tail.push(events);
  }
}

// A text in pieces, as many at a time as have come.
async function* pieces(response, separator) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    held.push(value);
    // Not put together before a piece may be whole: one may be as large as the bridge lets it be.
    if (!value.includes("\n")) continue;
    const whole = held.join("").split(separator);
    held = [whole.pop()];
    yield whole.filter((piece) => piece !== "");
  }
  const rest = held.join("");
  if (rest !== "") yield [rest];
}

// --- where the page is ----------------------------------------------------------------------------

let homeScroll = 0;

function route(event) {
  const [path, query] = location.hash.slice(1).split("?");
  const [, id] = /^\/jobs\/([^/]+)$/.exec(path) ?? [];
  const wasHome = !byId("home").hidden;
  if (wasHome && id !== undefined) homeScroll = scrollY;
  byId("home").hidden = id !== undefined;
  byId("job").hidden = id === undefined;
  if (id !== undefined) {
    byId("back").href = homeHash(history.query);
    showJob(decoded(id));
    scrollTo(0, 0);
  } else {
    closeJob();
    setFilters(new URLSearchParams(query));
    loadHistory();
    drawTitle();
    if (!wasHome) scrollTo(0, homeScroll);
  }
  // Another page, to those who hear it or go through it by keyboard; but not where it is loaded, nor where
  // another filter was chosen.
  if (event !== undefined && wasHome !== !byId("home").hidden) {
    byId(id === undefined ? "home-title" : "job-title").focus({ preventScroll: true });
  }
}

function decoded(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

// A browser has six connections to one bridge for all its pages. Those that nobody sees leave theirs.
function onVisibility() {
  if (!document.hidden) return connect();
  disconnect();
  shown.source?.close();
}

function begin() {
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", onVisibility);
  byId("filters").addEventListener("change", readFilters);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters-clear").addEventListener("click", () => (location.hash = "#/"));
  byId("more").addEventListener("click", loadMore);
  byId("start").addEventListener("click", openStart);
  byId("start-close").addEventListener("click", () => byId("start-dialog").close());
  // A key that was typed is forgotten, however the dialog was left.
  byId("start-dialog").addEventListener("close", () => (byId("start-form").elements.key.value = ""));
  byId("start-form").addEventListener("submit", start);
  byId("start-form").elements.backend.addEventListener("change", offerKinds);
  byId("start-form").elements.kind.addEventListener("change", noteOnKind);
  byId("job-cancel").addEventListener("click", () => confirmCancel(shown.job));
  byId("sign-out").addEventListener("click", signOut);
  byId("reload").addEventListener("click", () => location.reload());
  byId("problem-close").addEventListener("click", () => (byId("problem").hidden = true));
  onOpen(byId("raw-events"), "event", readEvents);
  onOpen(byId("raw-recording"), "line", readRecording);
  setInterval(tick, 1000);
  setInterval(() => document.hidden || loadBackends(), POLL);
  route();
  if (!document.hidden) connect();
}

begin();
