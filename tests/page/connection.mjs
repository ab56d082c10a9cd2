// Tests of lost connections and of many open pages.

import assert from "node:assert/strict";

import { AS_OPERATOR, VMS, barIs, home, open, startBackendAndBridge, startRestartableBridge, scenario, shows, start, status } from "./browser.mjs";

// Starts a sync and waits until the page shows it half done.
async function startHalfDone(page, backend) {
  await start(page, VMS);
  const stream = await backend.stream();
  stream.discover(["web01", "web02"]);
  stream.vm("web01", "completed");
  await barIs(page, 1);
  return stream;
}

export function testConnection() {
  scenario("the page shows that the bridge is unreachable, and recovers when it is back", async (stack) => {
    const { backend, bridge, restart } = await startRestartableBridge(stack);
    const page = await open(stack, bridge.admin);
    await startHalfDone(page, backend);
    await home(page);
    await page.locator("#running .card").waitFor();
    await bridge.end();
    await shows(page, "Connection to the bridge lost.");
    // What is shown is as old as the connection, and looks so.
    await shows(page, /The data shown is that of \d\d:\d\d:\d\d\./);
    await page.locator("#bridge").getByText(/^Not connected since \d\d:\d\d:\d\d$/).waitFor();
    assert.equal(await page.getByText("Ready", { exact: true }).count(), 0);
    const clock = page.locator("#running .card time");
    const stopped = await clock.textContent();
    await page.evaluate(updateTimesLater);
    assert.equal(await clock.textContent(), stopped);
    assert.equal(await page.locator("#running .card a").evaluate(isGrey), true);
    assert.equal(await page.getByRole("button", { name: "Start a sync" }).isDisabled(), true);
    await restart();
    await page.locator("#connection").waitFor({ state: "hidden" });
    await page.locator("#bridge").getByText("Ready", { exact: true }).waitFor();
    assert.equal(await page.locator("#history-title").evaluate(isGrey), false);
    await page.locator("#history tr", { hasText: "Interrupted" }).waitFor();
    await shows(page, "No sync is running or queued.");
    // The page receives events again.
    const stream = await startHalfDone(page, backend);
    stream.complete();
    await status(page, "Completed, 1 unconfirmed");
  });

  scenario("the page of a job recovers when the bridge is back", async (stack) => {
    const { backend, bridge, restart } = await startRestartableBridge(stack);
    const page = await open(stack, bridge.admin);
    await startHalfDone(page, backend);
    await bridge.end();
    await shows(page, "Connection to the bridge lost.");
    await restart();
    await status(page, "Interrupted");
    await page.getByRole("heading", { name: "Crashed" }).waitFor();
    await page.locator("#connection").waitFor({ state: "hidden" });
    assert.equal(await page.locator("#job-error").isVisible(), false);
  });

  scenario("hidden pages close their connections, which are limited for each host", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const pages = [await open(stack, bridge.admin)];
    // More pages than connections per host.
    while (pages.length < 8) {
      await setHidden(pages.at(-1), true);
      pages.push(await pages[0].context().newPage());
      await pages.at(-1).goto(bridge.admin);
      await pages.at(-1).getByRole("button", { name: "Start a sync" }).waitFor();
    }
    await setHidden(pages.at(-1), true);
    await fetch(`${bridge.admin}/sync/${VMS}/`, { method: "POST", headers: AS_OPERATOR });
    const stream = await backend.stream();
    await setHidden(pages[0], false);
    await pages[0].locator("#running .card").waitFor();
    stream.complete();
    await shows(pages[0], "No sync is running or queued.");
    assert.deepEqual(pages[0].errors, []);
  });
}

// Runs in the page. Updates its clocks as they are updated a minute later.
async function updateTimesLater() {
  const { updateTimes } = await import("/page/format.js");
  const now = Date.now;
  Date.now = () => now() + 60_000;
  updateTimes();
  Date.now = now;
}

// Runs in the page. Whether a text has the colour of what is no longer updated.
function isGrey(node) {
  const style = getComputedStyle(document.body);
  const muted = Object.assign(document.createElement("i"), { style: `color: ${style.getPropertyValue("--muted")}` });
  document.body.append(muted);
  const { color } = getComputedStyle(muted);
  muted.remove();
  return getComputedStyle(node).color === color;
}

// Hides or shows a page. A headless browser does not do so for background tabs.
function setHidden(page, isHidden) {
  return page.evaluate((isHidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, value: isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);
}
