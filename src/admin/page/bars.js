// Bars: how many objects of each sort a job has done.

import { element, fill, setText } from "./elements.js";
import { count } from "./numbers.js";
import { hasEnded } from "./state.js";
import { objects, title } from "./words.js";

// One bar for each sort of objects of a job. They stay the same elements, so that they move.
export class Bars {
  #place;
  #rows = new Map();

  constructor(place) {
    this.#place = place;
  }

  clear() {
    this.#rows.clear();
    this.#place.replaceChildren();
  }

  draw(job) {
    const counts = Object.entries(job.data.counts);
    const isUnknown = counts.length === 0 && job.status === "running";
    const wanted = isUnknown ? [["", null]] : counts;
    const rows = wanted.map(([name, numbers]) => {
      const row = this.#rows.get(name) ?? newBar(name, job);
      this.#rows.set(name, row);
      drawBar(row, numbers, hasEnded(job));
      return row.node;
    });
    fill(this.#place, rows);
  }
}

function newBar(name, job) {
  const label = name === "" ? "Waiting for the first object" : objects(name);
  const progress = element("progress", { "aria-label": `${label}, ${title(job)}` });
  const numbers = element("span", { class: "numbers" });
  const notes = element("span", { class: "notes" });
  const node = element("div", { class: "bar" }, element("span", { class: "name" }, label), progress, numbers, notes);
  return { node, progress, numbers, notes };
}

function drawBar({ progress, numbers, notes }, counted, ended) {
  // Nothing is counted yet: how long it will be is not known.
  if (counted === null) return;
  const { seen, completed, failed, unconfirmed } = counted;
  progress.max = Math.max(seen, 1);
  progress.value = completed + failed;
  progress.style.setProperty("--failed", `${failed === 0 ? 0 : (100 * failed) / progress.value}%`);
  setText(numbers, `${count(completed + failed)} of ${count(seen)}`);
  const text = notesOn({ failed, unconfirmed: ended ? unconfirmed : 0 });
  setText(notes, text);
  notes.classList.toggle("bad", failed > 0);
}

export function notesOn({ failed, unconfirmed }) {
  const notes = [failed > 0 && `${count(failed)} failed`, unconfirmed > 0 && `${count(unconfirmed)} unconfirmed`];
  return notes.filter(Boolean).join(", ");
}

export function total(counts) {
  const sum = { seen: 0, completed: 0, failed: 0, unconfirmed: 0 };
  for (const counted of Object.values(counts)) {
    for (const name of Object.keys(sum)) sum[name] += counted[name];
  }
  return sum;
}
