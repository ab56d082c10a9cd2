// A card for each job that has not ended.

import { jobPath } from "./api.js";
import { Bars } from "./bars.js";
import { confirmCancel, drawCancel, showsCancelling } from "./cancel.js";
import { byId, element, fill, setText } from "./elements.js";
import { count } from "./numbers.js";
import { drawStatus, elapsedOf } from "./signs.js";
import { backendName, jobs, told } from "./state.js";
import { drawTitle } from "./title.js";
import { over, title } from "./words.js";

const cards = new Map();

export function drawRunning() {
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
    told.backends.length > 1 ? `on ${backendName(job.backend)}` : null,
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

showsCancelling(drawRunning);
