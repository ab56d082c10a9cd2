// The connection on which the bridge tells what changes.

import { ask, complain } from "./api.js";
import { byId, later, say, setText } from "./elements.js";

// `isFresh`: nothing was told on this connection yet. `pause`: how long until another one is made.
const connection = { source: null, isFresh: true, isLost: false, retry: null, pause: 1000 };

// What takes the events, by their names.
const takes = {};

export function listen(name, take) {
  takes[name] = take;
}

export function connect() {
  clearTimeout(connection.retry);
  connection.source?.close();
  const source = new EventSource("/events");
  Object.assign(connection, { source, isFresh: true });
  for (const [name, take] of Object.entries(takes)) {
    source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  }
  source.addEventListener("error", () => onLost(source));
}

export function disconnect() {
  clearTimeout(connection.retry);
  connection.source?.close();
}

// A machine that went away without a word leaves its connections open, and EventSource does not know.
export function reconnect() {
  if (connection.source?.readyState === EventSource.OPEN) connect();
}

function onLost(source) {
  Object.assign(connection, { isFresh: true, isLost: true });
  later(drawConnection);
  if (source.readyState !== EventSource.CLOSED) return;
  // The browser has given up, as it does when the answer is an error, or at once in some browsers.
  connection.retry = setTimeout(connect, connection.pause);
  connection.pause = Math.min(connection.pause * 2, 10_000);
  ask("/backends").catch((problem) => problem.status === 401 && complain(problem));
}

// Something was told. Whether it is the first on this connection.
export function noteHeard() {
  const { isFresh, isLost } = connection;
  if (isLost) say("Connected to the bridge again.");
  Object.assign(connection, { isFresh: false, isLost: false, pause: 1000 });
  later(drawConnection);
  return isFresh;
}

const LOST = "The connection to the bridge is lost. Trying again… What is shown may be out of date.";

function drawConnection() {
  setText(byId("connection"), connection.isLost ? LOST : "");
  byId("connection").hidden = !connection.isLost;
}
