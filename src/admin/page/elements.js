// Elements: how they are made, and changed no more than they must be.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Makes `nodes` the children of `parent`, and keeps the focus on one of them that has it.
export function fill(parent, nodes) {
  if (nodes.length === parent.children.length && nodes.every((node, at) => node === parent.children[at])) return;
  const focused = document.activeElement;
  parent.replaceChildren(...nodes);
  if (focused?.isConnected && parent.contains(focused)) focused.focus({ preventScroll: true });
}

// Draws once before the next picture, however often it is asked to: events come faster than pictures.
const drawings = new Set();

export function later(draw) {
  if (drawings.size === 0) requestAnimationFrame(drawAll);
  drawings.add(draw);
}

function drawAll() {
  const due = [...drawings];
  drawings.clear();
  for (const draw of due) draw();
}

// Tells those who do not see the page what has happened.
export function say(text) {
  byId("said").textContent = text;
}
