// Where the page is: its address says what it shows.

import { byId } from "./elements.js";
import { filters, homeHash, setFilters } from "./filters.js";
import { loadHistory } from "./history.js";
import { closeJob, showJob } from "./job.js";
import { drawTitle } from "./title.js";

let homeScroll = 0;

export function route(event) {
  const [path, query] = location.hash.slice(1).split("?");
  const [, id] = /^\/jobs\/([^/]+)$/.exec(path) ?? [];
  const wasHome = !byId("home").hidden;
  if (wasHome && id !== undefined) homeScroll = scrollY;
  byId("home").hidden = id !== undefined;
  byId("job").hidden = id === undefined;
  if (id !== undefined) {
    byId("back").href = homeHash(filters.query);
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
