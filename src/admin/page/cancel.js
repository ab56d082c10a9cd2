// Cancelling a job.

import { ask, complain, jobPath } from "./api.js";
import { byId, later, setText } from "./elements.js";
import { backendName, cancelling, hasEnded, told } from "./state.js";
import { title } from "./words.js";

// What shows that a job is being cancelled.
const draws = [];

export function showsCancelling(draw) {
  draws.push(draw);
}

export function drawCancel(button, job) {
  button.hidden = !told.bridge?.can_act || hasEnded(job);
  button.disabled = cancelling.has(job.id);
  setText(button, button.disabled ? "Cancelling…" : "Cancel");
}

export function confirmCancel(job) {
  const dialog = byId("cancel-dialog");
  byId("cancel-text").textContent = `${title(job)} on ${backendName(job.backend)}`;
  dialog.returnValue = "";
  dialog.onclose = () => dialog.returnValue === "cancel" && cancel(job.id);
  dialog.showModal();
}

async function cancel(id) {
  setCancelling(id, true);
  try {
    await ask(jobPath(id), { method: "DELETE" });
  } catch (problem) {
    setCancelling(id, false);
    complain(problem);
  }
}

function setCancelling(id, isCancelling) {
  if (isCancelling) cancelling.add(id);
  else cancelling.delete(id);
  draws.forEach(later);
}
