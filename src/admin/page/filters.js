// The filters of the history. They are in the address, so that it can be kept and sent.

import { byId, setText } from "./elements.js";
import { told } from "./state.js";
import { words } from "./words.js";

const FILTERS = ["kind", "outcome", "backend", "since"];

// What the history is filtered by.
export const filters = { query: new URLSearchParams() };

export function setFilters(query) {
  filters.query = new URLSearchParams();
  for (const name of FILTERS) {
    const value = query.get(name) ?? "";
    const select = byId("filters").elements[name];
    // One that a link has and the list has not: the bridge says whether it understands it.
    if (![...select.options].some((option) => option.value === value)) select.append(new Option(value, value));
    select.value = value;
    if (value !== "") filters.query.set(name, value);
  }
  byId("filter-backend").hidden = told.backends.length < 2 && !filters.query.has("backend");
  byId("filters-clear").hidden = filters.query.size === 0;
}

function readFilters() {
  const query = new URLSearchParams();
  for (const name of FILTERS) {
    const { value } = byId("filters").elements[name];
    if (value !== "") query.set(name, value);
  }
  location.hash = homeHash(query);
}

export const homeHash = (query) => (query.size === 0 ? "#/" : `#/?${written(query)}`);

// As the bridge reads it: a plus is a plus there, and no space.
export function written(query) {
  return [...query].map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
}

// What can be chosen in the filters: what the backends have.
export function offerChoices() {
  const kinds = new Set(told.backends.flatMap((backend) => backend.kinds.map(({ kind }) => kind)));
  const { kind, backend } = byId("filters").elements;
  addOptions(kind, [...kinds].map((name) => [name, words(name)]));
  addOptions(backend, told.backends.map(({ url, name }) => [url, name]));
  byId("filter-backend").hidden = told.backends.length < 2 && !filters.query.has("backend");
}

function addOptions(select, choices) {
  for (const [value, text] of choices) {
    const known = [...select.options].find((option) => option.value === value);
    if (known === undefined) select.append(new Option(text, value));
    else setText(known, text);
  }
}

export function listenToFilters() {
  byId("filters").addEventListener("change", readFilters);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters-clear").addEventListener("click", () => (location.hash = "#/"));
}
