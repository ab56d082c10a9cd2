// DOM helpers. They change only what differs, so that focus, text selection and CSS animations survive a redraw.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Replaces the children of `parent`. An element that stays keeps the focus.
export function setChildren(parent, nodes) {
  if (nodes.length === parent.children.length && nodes.every((node, at) => node === parent.children[at])) return;
  const focused = document.activeElement;
  parent.replaceChildren(...nodes);
  if (focused?.isConnected && parent.contains(focused)) focused.focus({ preventScroll: true });
}

// Draws a `dl` of names and values, without the values that are null.
export function drawDetails(list, details) {
  const current = new Map([...list.children].map((row) => [row.firstElementChild.textContent, row]));
  const rows = details.filter(([, value]) => value !== null).map(([name, value]) => {
    const row = current.get(name) ?? element("div", {}, element("dt", {}, name), element("dd"));
    const wanted = element("span", {}, value);
    if (row.lastElementChild.textContent !== wanted.textContent) row.lastElementChild.replaceChildren(...wanted.childNodes);
    return row;
  });
  setChildren(list, rows);
}

const scheduled = new Set();

// Calls `draw` once in the next animation frame, however often it is scheduled until then.
export function scheduleDraw(draw) {
  if (scheduled.size === 0) requestAnimationFrame(drawScheduled);
  scheduled.add(draw);
}

function drawScheduled() {
  const draws = [...scheduled];
  scheduled.clear();
  for (const draw of draws) draw();
}

// Announces `text` to screen readers.
export function announce(text) {
  byId("announcement").textContent = text;
}
