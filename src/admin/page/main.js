// The live page of the admin listener. It stands on the API that /openapi.json describes and on nothing else.
//
// What backends and clients say is hostile until proven otherwise, names of virtual machines above all. It gets
// into the page as text alone (`append` and `textContent`), and into addresses through `encodeURIComponent` alone.

import { loadBackends } from "./backends.js";
import { confirmCancel } from "./cancel.js";
import { connect, disconnect, listen } from "./connection.js";
import { byId } from "./elements.js";
import { listenToFilters } from "./filters.js";
import { signOut } from "./header.js";
import { loadMore } from "./history.js";
import { onBridge, onJob } from "./live.js";
import { listenToRaw } from "./raw.js";
import { route } from "./route.js";
import { tick } from "./signs.js";
import { listenToStart } from "./start.js";
import { shown } from "./state.js";
import { unwatch } from "./timeline.js";

// How often the backends are asked about, in milliseconds. The same request notices a dead connection that
// EventSource takes for a quiet one.
const POLL = 15_000;

// A browser has six connections to one bridge for all its pages. Those that nobody sees leave theirs.
function onVisibility() {
  if (!document.hidden) return connect();
  disconnect();
  unwatch();
}

function begin() {
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", onVisibility);
  listenToFilters();
  listenToStart();
  listenToRaw();
  byId("more").addEventListener("click", loadMore);
  byId("job-cancel").addEventListener("click", () => confirmCancel(shown.job));
  byId("sign-out").addEventListener("click", signOut);
  byId("reload").addEventListener("click", () => location.reload());
  byId("problem-close").addEventListener("click", () => (byId("problem").hidden = true));
  listen("bridge", onBridge);
  listen("job", onJob);
  setInterval(tick, 1000);
  setInterval(() => document.hidden || loadBackends(), POLL);
  route();
  if (!document.hidden) connect();
}

begin();
