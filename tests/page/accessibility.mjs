// Tests with axe: every part of the page, on a phone, a tablet and a desktop, in light and dark.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";

import { VMS, home, open, openSignedOut, scenario, start, startBackendAndBridge, startRestartableBridge, status } from "./browser.mjs";

const WIDTHS = [390, 1024, 1440];

// Asserts that axe finds nothing wrong in the page as it is, at each width in light and dark.
async function isAccessible(page, what) {
  // As an expression of the debugger, to which the content security policy of the page does not apply.
  await page.evaluate(await readFile(path.join(process.env.PEERS, "node_modules/axe-core/axe.min.js"), "utf8"));
  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: 900 });
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const found = await page.evaluate(violations);
      assert.deepEqual(found, [], `${what}, ${width} px, ${colorScheme}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${what} is ${wide} pixels wide on a screen of ${width}`);
    }
  }
}

// Runs in the page.
async function violations() {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target} ${failureSummary}`));
}

export function testAccessibility() {
  scenario("axe finds nothing on the overview and in the form", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await page.getByText("No sync has ended yet.").waitFor();
    await isAccessible(page, "the empty overview");
    for (const fail of [true, false]) {
      await start(page, VMS);
      const stream = await backend.stream();
      stream.discover(["web01", "web02", "web03"]);
      stream.vm("web01", "completed");
      if (fail) stream.vm("web02", "failed", { error: "It has no name." });
      stream.complete();
      await status(page, fail ? "Completed with failures" : "Completed, 2 unconfirmed");
    }
    await start(page, "devices");
    (await backend.stream()).discover(["web01", "web02"]);
    await home(page);
    // The list may be older than the page of the job.
    await page.locator("#running .card", { hasText: /Devices.*Running for/s }).waitFor();
    await page.locator("#history tr").nth(1).waitFor();
    await isAccessible(page, "the overview");
    await page.getByRole("button", { name: "Start a sync" }).click();
    await isAccessible(page, "the form");
  });

  scenario("axe finds nothing on the page of a job while it runs, when it has failed, and in its forms", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01", "web02", "db01"]);
    stream.vm("web01", "completed");
    stream.vm("web02", "failed", { error: "It has no name." });
    await page.locator("#failed-rows tr").waitFor();
    await isAccessible(page, "a running job");
    await page.getByRole("button", { name: "Cancel" }).click();
    await isAccessible(page, "the question before a cancellation");
    await page.getByRole("button", { name: "Keep running" }).click();
    stream.complete(false, { message: "It failed.", errors: [{ detail: "All of it." }] });
    await status(page, "Failed");
    await page.locator("#raw-events summary").click();
    await page.locator("#raw-events li").first().waitFor();
    await isAccessible(page, "a failed job");
    await page.getByRole("button", { name: "Run again" }).click();
    await isAccessible(page, "the form that runs a sync again");
  });

  scenario("axe finds nothing on the sign-in page and while the bridge is away", async (stack) => {
    const { backend, bridge } = await startRestartableBridge(stack);
    await isAccessible(await openSignedOut(stack, `${bridge.admin}/session`), "the sign-in page");
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01", "web02"]);
    stream.vm("web01", "failed", { error: "It has no name." });
    await page.locator("#failed-rows tr").waitFor();
    await bridge.end();
    await page.locator("#connection").waitFor();
    await isAccessible(page, "the page of a job while the bridge is away");
    await home(page);
    await page.locator("#running .card").waitFor();
    await isAccessible(page, "the overview while the bridge is away");
  });
}
