// Tests of how the page gets along when the bridge goes away, or when there are many pages.

import assert from "node:assert/strict";

import { AS_OPERATOR, VMS, barIs, home, open, puppetAndBridge, restartable, scenario, seen, start, status } from "./browser.mjs";

// Starts a sync by the button, and waits until it is seen to be half done.
async function startHalf(page, puppet) {
  await start(page, VMS);
  const stream = await puppet.stream();
  stream.discover(["web01", "web02"]);
  stream.vm("web01", "completed");
  await barIs(page, 1);
  return stream;
}

export function testConnection() {
  scenario("the page says that the bridge is gone, and goes on when it is back", async (stack) => {
    const { puppet, bridge, again } = await restartable(stack);
    const page = await open(stack, bridge.admin);
    await startHalf(page, puppet);
    await home(page);
    await page.locator("#running .card").waitFor();
    await bridge.end();
    await seen(page, "The connection to the bridge is lost.");
    await again();
    await page.locator("#connection").waitFor({ state: "hidden" });
    await page.locator("#history tr", { hasText: "Interrupted" }).waitFor();
    await seen(page, "No sync runs or waits.");
    // And it is as live as before.
    const stream = await startHalf(page, puppet);
    stream.complete();
    await status(page, "Completed");
  });

  scenario("one job's page goes on too when the bridge is back", async (stack) => {
    const { puppet, bridge, again } = await restartable(stack);
    const page = await open(stack, bridge.admin);
    await startHalf(page, puppet);
    await bridge.end();
    await seen(page, "The connection to the bridge is lost.");
    await again();
    await status(page, "Interrupted");
    await page.getByRole("heading", { name: "Crashed" }).waitFor();
    await page.locator("#connection").waitFor({ state: "hidden" });
    assert.equal(await page.locator("#job-problem").isVisible(), false);
  });

  scenario("pages that nobody sees leave the connections of the browser to the one that is seen", async (stack) => {
    const { puppet, bridge } = await puppetAndBridge(stack);
    const pages = [await open(stack, bridge.admin)];
    // More than a browser has for one address.
    while (pages.length < 8) {
      await setHidden(pages.at(-1), true);
      pages.push(await pages[0].context().newPage());
      await pages.at(-1).goto(bridge.admin);
      await pages.at(-1).getByRole("button", { name: "Start a sync" }).waitFor();
    }
    await setHidden(pages.at(-1), true);
    await fetch(`${bridge.admin}/sync/${VMS}/`, { method: "POST", headers: AS_OPERATOR });
    const stream = await puppet.stream();
    await setHidden(pages[0], false);
    await pages[0].locator("#running .card").waitFor();
    stream.complete();
    await seen(pages[0], "No sync runs or waits.");
    assert.deepEqual(pages[0].complaints, []);
  });
}

// Puts a page behind another one, or in front again, which a browser without a window does not do.
function setHidden(page, isHidden) {
  return page.evaluate((isHidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, value: isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);
}
