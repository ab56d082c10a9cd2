// Tests of the page with a keyboard, on a phone, and for accessibility.

import assert from "node:assert/strict";

import { VMS, barIs, nextFrame, home, open, startBridge, startBackendAndBridge, scenario, start, status, openSignedOut } from "./browser.mjs";
import { replay } from "./programs.mjs";

export function testLooks() {
  scenario("a sync can be started and cancelled with the keyboard", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await page.getByRole("button", { name: "Start a sync" }).waitFor();
    await tabTo(page, "Start a sync");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await tabTo(page, "Kind");
    await page.keyboard.type("Virtual machines");
    await tabTo(page, "Start");
    await page.keyboard.press("Enter");
    const stream = await backend.stream();
    stream.discover(["web01"]);
    await page.waitForFunction(() => document.activeElement.id === "job-title");
    await tabTo(page, "Cancel");
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    assert.equal(await focused(page), "Keep running");
    await tabTo(page, "Cancel the sync");
    await page.keyboard.press("Enter");
    await status(page, "Cancelled");
    await stream.closed;
    assert.deepEqual(page.errors, []);
  });

  scenario("nothing overflows a screen of 320 pixels", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const phone = { viewport: { width: 320, height: 640 }, isMobile: true, hasTouch: true };
    const page = await open(stack, bridge.admin, phone);
    await start(page, VMS);
    const stream = await backend.stream();
    const long = "a_virtual_machine_with_a_very_long_name_without_spaces_".repeat(6);
    stream.discover([long, "web02"]);
    stream.vm(long, "failed", { error: long });
    await barIs(page, 1);
    await fits(page, "a running job");
    await home(page);
    await page.locator("#running .card").getByText("1 failed").waitFor();
    await fits(page, "the overview with a running job");
    await page.getByText("Channel for each kind of sync").click();
    await fits(page, "the overview with kinds");
    stream.complete(false, { message: long, errors: [{ detail: long }] });
    await page.locator("#history tr").waitFor();
    await fits(page, "the overview with a history");
    await page.setViewportSize({ width: 1024, height: 640 });
    assert.equal(await page.locator("#history .notes").evaluate(linesOf, "unconfirmed"), 1);
    await page.setViewportSize(phone.viewport);
    await page.locator("#history a").click();
    await page.locator("#failed-rows tr").waitFor();
    await page.locator("#raw-events summary").click();
    await page.locator("#raw-events li").first().waitFor();
    await fits(page, "a failed job");
    await page.getByRole("button", { name: "Start a sync" }).click();
    await fits(page, "the form");
  });

  scenario("the NetBox jobs and the NetBox listener do not overflow a screen of 320 pixels", async (stack) => {
    const backend = stack.use(await replay("0.0.2.post1"));
    const bridge = await startBridge(stack, backend.url, { "backend.netbox_listen": "127.0.0.1:0" });
    const page = await open(stack, bridge.admin, { viewport: { width: 320, height: 640 }, isMobile: true });
    await page.getByText("Outcomes of NetBox jobs").click();
    await page.getByText("GET /proxmox/firewall/summary").waitFor();
    await page.getByText("does not know yet where NetBox is").waitFor();
    await fits(page, "the NetBox jobs");
  });

  scenario("all text has enough contrast in light and dark, and nothing moves with reduced motion", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin, { reducedMotion: "reduce" });
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01", "web02"]);
    await status(page, "Running");
    const moving = () => document.getAnimations().filter((one) => one.playState === "running").length;
    assert.equal(await page.evaluate(moving), 0);
    await page.emulateMedia({ reducedMotion: "no-preference" });
    assert.notEqual(await page.evaluate(moving), 0);
    await home(page);
    await page.locator("#running .card").waitFor();
    const backgrounds = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      backgrounds.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      assert.deepEqual(await page.evaluate(lowContrastTexts), [], colorScheme);
    }
    assert.notEqual(backgrounds[0], backgrounds[1]);
    stream.vm("web01", "failed", { error: "It has no name." });
    stream.complete(false, { message: "It failed.", errors: [{ detail: "All of it." }] });
    await page.locator("#history a").click();
    await page.locator("#failed-rows tr").waitFor();
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await page.evaluate(lowContrastTexts), [], colorScheme);
    }
  });

  scenario("controls have names, headings are in order, and the page without JavaScript shows a notice", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    (await backend.stream()).discover(["web01", "web02"]);
    await page.getByRole("progressbar", { name: "Virtual machines" }).waitFor();
    assert.deepEqual(await page.evaluate(unnamed), []);
    await home(page);
    await page.locator("#running .card").waitFor();
    assert.deepEqual(await page.evaluate(unnamed), []);
    const levels = await page.evaluate(() =>
      [...document.querySelectorAll("#home :is(h1, h2, h3)")].map((heading) => Number(heading.tagName[1])),
    );
    assert.ok(levels[0] === 1 && levels.every((level, at) => at === 0 || level <= levels[at - 1] + 1), `${levels}`);
    const plain = await openSignedOut(stack, bridge.admin, { javaScriptEnabled: false });
    // By selector: Playwright finds no text in `noscript`.
    await plain.locator("noscript p").waitFor();
    await plain.locator("noscript a", { hasText: "/jobs" }).click();
    await plain.waitForURL(/\/jobs$/);
  });
}

// The name of the focused element.
function focused(page) {
  return page.evaluate(() => {
    const { activeElement: here } = document;
    if (here === document.body) return "";
    return here.getAttribute("aria-label") ?? here.labels?.[0]?.firstChild.textContent.trim() ?? here.textContent.trim();
  });
}

async function tabTo(page, name) {
  const reached = [];
  while (reached.length < 60) {
    await page.keyboard.press("Tab");
    const here = await focused(page);
    if (here === name) return;
    reached.push(here);
  }
  assert.fail(`${name} is not reached by Tab: ${reached}`);
}

async function fits(page, what) {
  await nextFrame(page);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 320, `${what} is ${width} pixels wide`);
}

// Runs in the page. On how many lines `word` in `node` is.
function linesOf({ firstChild: text }, word) {
  const range = document.createRange();
  range.setStart(text, text.data.indexOf(word));
  range.setEnd(text, text.data.indexOf(word) + word.length);
  return range.getClientRects().length;
}

// Runs in the page. The controls and regions without an accessible name.
function unnamed() {
  const controls = document.querySelectorAll("a[href], button, select, input, progress, dialog, [role=region]");
  const named = (control) =>
    control.getAttribute("aria-label") ?? document.getElementById(control.getAttribute("aria-labelledby"))?.textContent ?? control.labels?.[0]?.textContent ?? control.textContent;
  return [...controls].filter((control) => named(control).trim() === "").map((control) => control.outerHTML);
}

// Runs in the page. The texts with less contrast than WCAG AA requires.
function lowContrastTexts() {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const background = (node) => {
    for (let at = node; at !== null; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const luminance = (colour) => {
    const [red, green, blue] = colour.slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (node) => {
    const [one, other] = [luminance(rgba(getComputedStyle(node).color)), luminance(background(node))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== "");
  const texts = [...document.querySelectorAll("body *")].filter((node) => hasText(node) && node.checkVisibility());
  if (texts.length < 20) return ["too few texts"];
  return texts.filter((node) => contrast(node) < 4.5).map((node) => `${contrast(node).toFixed(2)} ${node.outerHTML}`);
}
