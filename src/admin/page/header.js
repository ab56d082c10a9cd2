// What the bridge says of itself, what keeps it from its work, and who may sign in.

import { ask, complain } from "./api.js";
import { byId, element } from "./elements.js";
import { drawJob } from "./job.js";
import { drawRunning } from "./running.js";
import { elapsedOf } from "./signs.js";
import { shown, told } from "./state.js";

export function drawBridge() {
  const { bridge } = told;
  const state = bridge.draining ? "draining" : bridge.ready ? "ready" : "unready";
  const label = { draining: "Stopping", ready: "Ready", unready: "Not ready" }[state];
  byId("bridge").replaceChildren(
    element("span", { class: `status ${state}` }, label),
    element("span", { class: "version" }, `Version ${bridge.version}, up `, elapsedOf(bridge.started)),
  );
  byId("start").hidden = !bridge.can_act;
  const canSignIn = bridge.has_token;
  byId("sign-in").hidden = bridge.can_act || !canSignIn;
  byId("no-token").hidden = canSignIn;
  byId("sign-out").hidden = !bridge.can_act;
  drawReasons();
  drawRunning();
  if (shown.job !== null) drawJob();
}

export function drawReasons() {
  const { bridge } = told;
  const reasons = bridge === null || bridge.ready ? [] : bridge.reasons;
  const down = told.backends.filter((backend) => backend.up === false);
  const lines = [
    ...reasons.map((reason) => `Not ready: ${reason}`),
    ...down.map(({ name, problem }) => `Backend ${name} cannot be reached${problem === null ? "." : `: ${problem}`}`),
  ];
  const before = byId("reasons").textContent;
  if (before === lines.join("")) return;
  byId("reasons").replaceChildren(...lines.map((line) => element("p", {}, line)));
  byId("reasons").hidden = lines.length === 0;
}

export function offerReload(version) {
  byId("newer-text").textContent = `The bridge is version ${version} now; this page is of the one before.`;
  byId("newer").hidden = false;
}

export async function signOut() {
  try {
    await ask("/session", { method: "DELETE" });
    location.reload();
  } catch (problem) {
    complain(problem);
  }
}
