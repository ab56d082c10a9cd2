// The live page of the admin listener. It uses only the API that /openapi.json describes.
//
// Texts from backends and clients, such as names of virtual machines, are untrusted. They enter the page only as text
// (`append` and `textContent`), and addresses only through `encodeURIComponent`.

import { initActions } from "./actions.js";
import { connect, disconnect, listen } from "./api.js";
import { loadBackends } from "./backends.js";
import { byId } from "./dom.js";
import { initFailed } from "./failed.js";
import { updateTimes } from "./format.js";
import "./freshness.js";
import { homeHash, initHistory, loadHistory, setFilters } from "./history.js";
import { closeJob, showJob } from "./job.js";
import { onBridge, onJob } from "./live.js";
import { initLogs, unfollowJob } from "./logs.js";
import { drawTitle } from "./state.js";

// How often the backends are loaded, in milliseconds. Also detects a dead connection that EventSource takes for idle.
const POLL_INTERVAL = 15_000;

let homeScroll = 0;

// Shows the page that the fragment of the address names.
function route(event) {
  const [path, query] = location.hash.slice(1).split("?");
  const [, id] = /^\/jobs\/([^/]+)$/.exec(path) ?? [];
  const wasHome = !byId("home").hidden;
  if (wasHome && id !== undefined) homeScroll = scrollY;
  byId("home").hidden = id !== undefined;
  byId("job").hidden = id === undefined;
  if (id !== undefined) {
    byId("back").href = homeHash();
    showJob(decode(id));
    scrollTo(0, 0);
  } else {
    closeJob();
    setFilters(new URLSearchParams(query));
    loadHistory();
    drawTitle();
    if (!wasHome) scrollTo(0, homeScroll);
  }
  // Tells screen readers and keyboard users that the page has changed. Not on load, and not for another filter.
  if (event !== undefined && wasHome !== !byId("home").hidden) {
    byId(id === undefined ? "home-title" : "job-title").focus({ preventScroll: true });
  }
}

function decode(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

// Browsers allow six HTTP/1 connections to a host from all tabs together. Hidden pages close theirs.
function onVisibility() {
  if (!document.hidden) return connect();
  disconnect();
  unfollowJob();
}

function init() {
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", onVisibility);
  initActions(onJob);
  initHistory();
  initLogs();
  initFailed();
  byId("reload").addEventListener("click", () => location.reload());
  byId("error-close").addEventListener("click", () => (byId("error").hidden = true));
  listen("bridge", onBridge);
  listen("job", onJob);
  setInterval(updateTimes, 1000);
  setInterval(() => document.hidden || loadBackends(), POLL_INTERVAL);
  route();
  if (!document.hidden) connect();
}

init();
