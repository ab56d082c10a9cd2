// What is asked of the bridge, and what the page says when it could not be had.

import { setClock } from "./clock.js";
import { byId, element } from "./elements.js";
import { duration } from "./numbers.js";

// How long an answer may take, in milliseconds.
const PATIENCE = 20_000;

// Why something could not be had.
export class Problem extends Error {
  constructor(status, message, detail = "", retryAfter = null) {
    super(message);
    Object.assign(this, { status, detail, retryAfter });
  }
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted && error.name === "AbortError") throw error;
    throw unanswered();
  }
  setClock(response);
  if (!response.ok) throw await refusal(response);
  return response;
}

export function unanswered() {
  return new Problem(0, "The bridge does not answer.", "See whether it runs and whether this machine reaches it.");
}

async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const message = said.message ?? said.reason ?? `The bridge answers ${response.status}.`;
  return new Problem(response.status, message, said.detail ?? "", response.headers.get("retry-after"));
}

export async function ask(path, options = {}) {
  const response = await request(path, { signal: AbortSignal.timeout(PATIENCE), ...options });
  if (response.status === 204) return null;
  return response.json().catch(() => {
    // The connection broke off in the middle.
    throw unanswered();
  });
}

export const jobPath = (id, rest = "") => `/jobs/${encodeURIComponent(id)}${rest}`;

// What is to be done about it, as far as the status tells.
function adviceOn(problem) {
  if (problem.status === 401) {
    return element("p", {}, element("a", { href: "/session" }, "Sign in"), " and try again.");
  }
  const wait = Number(problem.retryAfter);
  if (wait > 0) return element("p", {}, `Try again in ${duration(wait)}.`);
  return problem.status === 0 ? element("p", {}, "It is asked again when the connection is back.") : null;
}

export function accountOf(problem) {
  if (!(problem instanceof Problem)) throw problem;
  const detail = problem.detail === "" ? null : element("p", { class: "said" }, problem.detail);
  return [element("p", {}, element("strong", {}, problem.message)), detail, adviceOn(problem)].filter(Boolean);
}

export function showProblem(place, problem) {
  place.replaceChildren(element("div", { class: "notice bad" }, ...accountOf(problem)));
  place.hidden = false;
}

// A problem with something that was asked for from anywhere in the page.
export function complain(problem) {
  byId("problem-text").replaceChildren(...accountOf(problem));
  byId("problem").hidden = false;
}
