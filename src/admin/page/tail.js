// The end of something long.

import { later, setText } from "./elements.js";
import { count, many } from "./numbers.js";

// How many of them are in the page at once.
const LINES = 500;

// The newest lines of something that may be endless, in a box that stays at its end while it stands there.
export class Tail {
  #list;
  #box;
  #make;
  #left;
  #queue = [];
  #pushed = 0;
  #show = () => this.#draw();

  // `make` makes an element of a line; `left` is told how many lines there are, and of how many.
  constructor(list, make, left) {
    this.#list = list;
    this.#box = list.parentElement;
    this.#make = make;
    this.#left = left;
  }

  clear() {
    this.#queue = [];
    this.#pushed = 0;
    this.#list.replaceChildren();
    later(this.#show);
  }

  push(lines) {
    this.#pushed += lines.length;
    this.#queue.push(...lines.slice(-LINES));
    // Of what nobody will see, no element is made.
    if (this.#queue.length > 2 * LINES) this.#queue.splice(0, this.#queue.length - LINES);
    later(this.#show);
  }

  #draw() {
    const box = this.#box;
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const lines = this.#queue.splice(0).slice(-LINES);
    if (lines.length === LINES) this.#list.replaceChildren();
    this.#list.append(...lines.map(this.#make));
    while (this.#list.childElementCount > LINES) this.#list.firstElementChild.remove();
    this.#left(this.#list.childElementCount, this.#pushed);
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }
}

// Says under a tail how much of it is there.
export function leftIn(place, one) {
  return (here, all) => {
    place.hidden = here === all;
    setText(place, `The newest ${count(here)} of ${many(all, one, one === "entry" ? "entries" : `${one}s`)} are shown.`);
  };
}
