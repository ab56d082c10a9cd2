// Why a job failed, and which of its objects did.

import { byId, element, setText } from "./elements.js";
import { LINE_CHARS, count, shortened } from "./numbers.js";
import { HINTS, SOURCES, words } from "./words.js";

const FAILED_ROWS = 500;

export function drawFailure(job) {
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

export function drawFailed(failed) {
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
