// Requests to the bridge, its stream of events, and the display of errors.

import { announce, byId, element, scheduleDraw, setText } from "./dom.js";
import { duration, setClock } from "./format.js";

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

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted && error.name === "AbortError") throw error;
    throw noResponse();
  }
  setClock(response);
  if (!response.ok) throw await errorFrom(response);
  return response;
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
    return element("p", {}, element("a", { href: "/session" }, "Sign in"), " and try again.");
  }
  const wait = Number(error.retryAfter);
  return wait > 0 ? element("p", {}, `Try again in ${duration(wait)}.`) : null;
}

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

// The connection to /events. `isFresh`: it has had no event yet. `delay`: until the next attempt, in milliseconds.
const connection = { source: null, isFresh: true, isLost: false, timer: null, delay: 1000 };

const handlers = {};

// Sets the handler of the events called `name`.
export function listen(name, handler) {
  handlers[name] = handler;
}

export function connect() {
  disconnect();
  const source = new EventSource("/events");
  Object.assign(connection, { source, isFresh: true });
  for (const [name, handler] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
  }
  source.addEventListener("error", () => onLost(source));
}

export function disconnect() {
  clearTimeout(connection.timer);
  connection.source?.close();
}

// Reconnects where EventSource believes to be connected: it does not notice a host that vanished.
export function reconnect() {
  if (connection.source?.readyState === EventSource.OPEN) connect();
}

function onLost(source) {
  Object.assign(connection, { isFresh: true, isLost: true });
  scheduleDraw(drawConnection);
  if (source.readyState !== EventSource.CLOSED) return;
  // Browsers do not retry after an error status. Some do not retry after a refused connection either.
  connection.timer = setTimeout(connect, connection.delay);
  connection.delay = Math.min(connection.delay * 2, 10_000);
  requestJson("/backends").catch((error) => error.status === 401 && showBanner(error));
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
  const text = "Connection to the bridge lost. Reconnecting… The data shown may be out of date.";
  setText(byId("connection"), connection.isLost ? text : "");
  byId("connection").hidden = !connection.isLost;
}
