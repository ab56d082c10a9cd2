// Requests to the bridge, its stream of events, and the display of errors.

import { announce, byId, element, scheduleDraw, setText } from "./dom.js";
import { duration, heard, setClock, startClock, stopClock, timeOfDay } from "./format.js";
import { redraw } from "./state.js";

// The time limit of a request, in milliseconds.
const TIMEOUT = 20_000;

// A failed request. Its status is 0 if there was no response.
export class ApiError extends Error {
  constructor(status, message, detail = "", retryAfter = null) {
    super(message);
    Object.assign(this, { status, detail, retryAfter });
  }
}

export const jobPath = (id, rest = "") => `/jobs/${encodeURIComponent(id)}${rest}`;

// The address of a path of the API. It is relative to the page, which a proxy may serve under a path of its own.
export const address = (path) => path.replace(/^\//, "");

export async function request(path, options = {}) {
  // A further request would get 401, too.
  if (connection.isSignedOut && options.method === undefined) throw signedOut();
  let response;
  try {
    response = await fetch(address(path), { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted && error.name === "AbortError") throw error;
    throw noResponse();
  }
  setClock(response);
  if (response.status === 401 && options.method === undefined) endSession();
  if (!response.ok) throw await errorFrom(response);
  return response;
}

const signedOut = () => new ApiError(401, "You are signed out.", "The session has ended, or the admin token has changed.");

function endSession() {
  connection.isSignedOut = true;
  disconnect();
  scheduleDraw(drawConnection);
}

export async function requestJson(path, options = {}) {
  const response = await request(path, { signal: AbortSignal.timeout(TIMEOUT), ...options });
  if (response.status === 204) return null;
  return response.json().catch(() => {
    // The connection was lost in the middle of the body.
    throw noResponse();
  });
}

export function noResponse() {
  return new ApiError(0, "No response from the bridge.", "Check that it is running and reachable from this device.");
}

async function errorFrom(response) {
  const body = await response.json().catch(() => ({}));
  const message = body.message ?? body.reason ?? `The bridge responded with status ${response.status}.`;
  return new ApiError(response.status, message, body.detail ?? "", response.headers.get("retry-after"));
}

function advice(error) {
  if (error.status === 401) {
    return element("p", {}, signInLink(), " and try again.");
  }
  const wait = Number(error.retryAfter);
  return wait > 0 ? element("p", {}, `Try again in ${duration(wait)}.`) : null;
}

const signInLink = () => element("a", { href: address("/session") }, "Sign in");

export function errorElements(error) {
  if (!(error instanceof ApiError)) throw error;
  const detail = error.detail === "" ? null : element("p", { class: "quoted" }, error.detail);
  return [element("p", {}, element("strong", {}, error.message)), detail, advice(error)].filter(Boolean);
}

export function showError(place, error) {
  place.replaceChildren(element("div", { class: "notice bad" }, ...errorElements(error)));
  place.hidden = false;
}

// Shows an error at the top of the page.
export function showBanner(error) {
  byId("error-text").replaceChildren(...errorElements(error));
  byId("error").hidden = false;
}

// The parts of a body between separators, in batches as they are received.
export async function* chunksOf(response, separator) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    pending.push(value);
    // Joining at every read would take quadratic time for a large part.
    if (!value.includes("\n")) continue;
    const parts = pending.join("").split(separator);
    pending = [parts.pop()];
    yield parts.filter((part) => part !== "");
  }
  const rest = pending.join("");
  if (rest !== "") yield [rest];
}

// The connection to /events. `isFresh`: it has had no event yet. `delay`: until the next attempt, in milliseconds.
const connection = { source: null, isFresh: true, isLost: false, isSignedOut: false, timer: null, delay: 1000 };

// Whether the data shown is no longer updated.
export const isStale = () => connection.isLost || connection.isSignedOut;

const handlers = {};

// Sets the handler of the events called `name`.
export function listen(name, handler) {
  handlers[name] = handler;
}

export function connect() {
  if (connection.isSignedOut) return;
  disconnect();
  const source = new EventSource(address("/events"));
  Object.assign(connection, { source, isFresh: true });
  for (const [name, handler] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      heard();
      handler(JSON.parse(event.data));
    });
  }
  source.addEventListener("error", () => onLost(source));
}

export function disconnect() {
  clearTimeout(connection.timer);
  connection.source?.close();
}

// Reconnects where EventSource believes to be connected: it does not notice a host that vanished.
export function reconnect() {
  lose();
  if (connection.source?.readyState === EventSource.OPEN) connect();
}

function lose() {
  Object.assign(connection, { isFresh: true, isLost: true });
  scheduleDraw(drawConnection);
}

function onLost(source) {
  // The connection was there until now.
  if (!connection.isFresh) heard();
  lose();
  if (source.readyState !== EventSource.CLOSED) return;
  // Browsers do not retry after an error status. Some do not retry after a refused connection either.
  connection.timer = setTimeout(connect, connection.delay);
  connection.delay = Math.min(connection.delay * 2, 10_000);
  // EventSource has no status. A 401 to this request ends the attempts.
  requestJson("/backends").catch(() => {});
}

// Marks the connection as working. Returns whether this was its first event.
export function markConnected() {
  const { isFresh, isLost } = connection;
  if (isLost) announce("Reconnected to the bridge.");
  Object.assign(connection, { isFresh: false, isLost: false, delay: 1000 });
  scheduleDraw(drawConnection);
  return isFresh;
}

function drawConnection() {
  if (isStale()) stopClock();
  else startClock();
  const lost = () => `Connection to the bridge lost. Reconnecting… The data shown is that of ${timeOfDay()}.`;
  const ended = () => `You are signed out. The data shown is that of ${timeOfDay()}.`;
  setText(byId("connection-text"), connection.isSignedOut ? ended() : connection.isLost ? lost() : "");
  byId("sign-in-again").hidden = !connection.isSignedOut;
  byId("connection").hidden = !isStale();
  document.body.classList.toggle("stale", isStale());
  redraw();
}
