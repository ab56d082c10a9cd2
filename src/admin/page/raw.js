// What the bridge and the backend said word for word, read while somebody looks at it.

import { accountOf, jobPath, request, unanswered } from "./api.js";
import { byId, element } from "./elements.js";
import { LINE_CHARS, shortened } from "./numbers.js";
import { shown } from "./state.js";
import { Tail, leftIn } from "./tail.js";

const rawLine = (text) => element("li", {}, shortened(text, LINE_CHARS));

// Reads into `details` while it is open. `read` gives lines to a tail until its signal is aborted.
function onOpen(details, one, read) {
  const note = details.querySelector(".left");
  const tail = new Tail(details.querySelector("ol"), rawLine, leftIn(note, one));
  let reading = null;
  details.addEventListener("toggle", async () => {
    reading?.abort();
    tail.clear();
    details.querySelector(".notice")?.remove();
    if (!details.open) return;
    reading = new AbortController();
    const { signal } = reading;
    try {
      await read(shown.id, tail, signal);
    } catch (problem) {
      if (!signal.aborted) note.before(element("div", { class: "notice" }, ...accountOf(problem)));
    }
  });
}

export function listenToRaw() {
  onOpen(byId("raw-events"), "event", readEvents);
  onOpen(byId("raw-recording"), "line", readRecording);
}

export function closeRaw() {
  for (const raw of [byId("raw-events"), byId("raw-recording")]) raw.open = false;
}

async function readRecording(id, tail, signal) {
  const response = await request(jobPath(id, "/recording"), { signal });
  try {
    for await (const lines of pieces(response, "\n")) tail.push(lines);
  } catch {
    throw unanswered();
  }
}

// A stream of events as text, types that nobody has heard of included, which EventSource would not give.
async function readEvents(id, tail, signal) {
  const seen = { id: "", isOver: false };
  while (!seen.isOver && !signal.aborted) {
    const from = seen.id === "" ? "" : `&bridge.last_event_id=${encodeURIComponent(seen.id)}`;
    const response = await request(jobPath(id, `/events?bridge.events=all${from}`), { signal }).catch((problem) => {
      // The bridge is being restarted.
      if (problem.status !== 0 || seen.id === "") throw problem;
      return null;
    });
    if (response?.status === 204) return;
    if (response !== null) await readBlocks(response, tail, seen).catch(() => {});
    if (!seen.isOver) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function readBlocks(response, tail, seen) {
  for await (const blocks of pieces(response, "\n\n")) {
    const events = blocks.filter((block) => !block.startsWith(":"));
    for (const event of events) {
      seen.id = /^id: (.*)$/m.exec(event)?.[1] ?? seen.id;
      seen.isOver ||= /^event: complete$/m.test(event);
    }
    tail.push(events);
  }
}

// A text in pieces, as many at a time as have come.
async function* pieces(response, separator) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    held.push(value);
    // Not put together before a piece may be whole: one may be as large as the bridge lets it be.
    if (!value.includes("\n")) continue;
    const whole = held.join("").split(separator);
    held = [whole.pop()];
    yield whole.filter((piece) => piece !== "");
  }
  const rest = held.join("");
  if (rest !== "") yield [rest];
}
