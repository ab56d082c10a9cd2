// The progress of jobs: bars, counts, and a card for each running job.

import { drawCancel, confirmCancel } from "./actions.js";
import { jobPath } from "./api.js";
import { byId, element, setChildren, setText } from "./dom.js";
import { count, drawStatus, elapsedElement } from "./format.js";
import { channelList, jobTitle, objectLabel } from "./labels.js";
import { addView, backendName, bridgeState, drawTitle, hasEnded, jobs } from "./state.js";

// A bar for each object type of a job. The elements are kept, so that changes are animated.
export class Bars {
  #place;
  #bars = new Map();

  constructor(place) {
    this.#place = place;
  }

  clear() {
    this.#bars.clear();
    this.#place.replaceChildren();
  }

  draw(job) {
    const counts = Object.entries(job.data.counts);
    const isIndeterminate = counts.length === 0 && job.status === "running";
    const nodes = (isIndeterminate ? [["", null]] : counts).map(([type, counted]) => {
      const bar = this.#bars.get(type) ?? newBar(type, job);
      this.#bars.set(type, bar);
      if (counted !== null) drawBar(bar, counted, hasEnded(job));
      return bar.node;
    });
    setChildren(this.#place, nodes);
  }
}

function newBar(type, job) {
  const name = type === "" ? "Waiting for the first object" : objectLabel(type);
  const progress = element("progress", { "aria-label": `${name}, ${jobTitle(job)}` });
  const numbers = element("span", { class: "numbers" });
  const notes = element("span", { class: "notes" });
  const node = element("div", { class: "bar" }, element("span", { class: "name" }, name), progress, numbers, notes);
  return { node, progress, numbers, notes };
}

function drawBar({ progress, numbers, notes }, { seen, completed, failed, unconfirmed }, isFinal) {
  progress.max = Math.max(seen, 1);
  progress.value = completed + failed;
  progress.style.setProperty("--failed", `${failed === 0 ? 0 : (100 * failed) / progress.value}%`);
  setText(numbers, `${count(completed)} of ${count(seen)}`);
  setText(notes, countNotes({ failed, unconfirmed: isFinal ? unconfirmed : 0 }));
  notes.classList.toggle("bad", failed > 0);
}

export function countNotes({ failed, unconfirmed }) {
  const notes = [failed > 0 && `${count(failed)} failed`, unconfirmed > 0 && `${count(unconfirmed)} unconfirmed`];
  return notes.filter(Boolean).join(", ");
}

export function totalCounts(counts) {
  const total = { seen: 0, completed: 0, failed: 0, unconfirmed: 0 };
  for (const counted of Object.values(counts)) {
    for (const name of Object.keys(total)) total[name] += counted[name];
  }
  return total;
}

const cards = new Map();

export function drawRunning() {
  const list = byId("running");
  const hadFocus = list.contains(document.activeElement);
  for (const id of cards.keys()) {
    if (!jobs.has(id)) cards.delete(id);
  }
  const nodes = [...jobs.keys()].sort().map((id) => {
    const card = cards.get(id) ?? newCard(jobs.get(id));
    cards.set(id, card);
    drawCard(card, jobs.get(id));
    return card.node;
  });
  setChildren(list, nodes);
  // The focused card was removed.
  if (hadFocus && !list.contains(document.activeElement)) byId("running-title").focus({ preventScroll: true });
  setText(byId("running-count"), nodes.length === 0 ? "" : count(nodes.length));
  byId("running-empty").hidden = nodes.length > 0;
  drawTitle();
}

function newCard(job) {
  const status = element("span");
  const cancel = element("button", { type: "button", class: "danger quiet", "aria-label": `Cancel ${jobTitle(job)}` }, "Cancel");
  cancel.addEventListener("click", () => confirmCancel(job));
  const about = element("p", { class: "about" });
  const bars = element("div", { class: "bars" });
  const link = element("a", { href: `#${jobPath(job.id)}` }, jobTitle(job));
  const names = element("div", { class: "names" }, element("h3", {}, link), status);
  const head = element("div", { class: "title" }, names, cancel);
  return { node: element("li", { class: "card" }, head, about, bars), status, about, cancel, bars: new Bars(bars) };
}

function drawCard(card, job) {
  drawStatus(card.status, job);
  drawCancel(card.cancel, job);
  const parts = [
    bridgeState.backends.length > 1 ? `on ${backendName(job.backend)}` : null,
    job.channels.length > 0 ? `via ${channelList(job.channels)}` : null,
    job.user === null ? null : `requested by ${job.user}`,
  ];
  const time = job.started === null ? ["Queued for ", elapsedElement(job.created)] : ["Running for ", elapsedElement(job.started)];
  card.about.replaceChildren(...time, ...parts.filter((part) => part !== null).map((part) => `, ${part}`));
  card.bars.draw(job);
}

addView(drawRunning);
