// Tests of the page for a keyboard, a phone, and those who see little of it.

import assert from "node:assert/strict";

import { VMS, barIs, drawn, home, open, operated, puppetAndBridge, scenario, start, status, visit } from "./browser.mjs";
import { replay } from "./programs.mjs";

export function testLooks() {
  scenario("a keyboard is enough to start a sync and to cancel it", async (stack) => {
    const { puppet, bridge } = await puppetAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await page.getByRole("button", { name: "Start a sync" }).waitFor();
    await tabTo(page, "Start a sync");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await tabTo(page, "Kind");
    await page.keyboard.type("Virtual machines");
    await tabTo(page, "Start");
    await page.keyboard.press("Enter");
    const stream = await puppet.stream();
    stream.discover(["web01"]);
    await page.waitForFunction(() => document.activeElement.id === "job-title");
    await tabTo(page, "Cancel");
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    assert.equal(await focused(page), "Let it run");
    await tabTo(page, "Cancel the sync");
    await page.keyboard.press("Enter");
    await status(page, "Cancelled");
    await stream.hungUp;
    assert.deepEqual(page.complaints, []);
  });

  scenario("a phone of 320 pixels shows everything without scrolling sideways", async (stack) => {
    const { puppet, bridge } = await puppetAndBridge(stack);
    const phone = { viewport: { width: 320, height: 640 }, isMobile: true, hasTouch: true };
    const page = await open(stack, bridge.admin, phone);
    await start(page, VMS);
    const stream = await puppet.stream();
    const long = "a_virtual_machine_with_a_name_that_never_ends_".repeat(6);
    stream.discover([long, "web02"]);
    stream.vm(long, "failed", { error: long });
    await barIs(page, 1);
    await fits(page, "a job that runs");
    await home(page);
    await page.locator("#running .card").getByText("1 failed").waitFor();
    await fits(page, "the overview with a card");
    await page.getByText("What each kind will use").click();
    await fits(page, "the overview with kinds");
    stream.complete(false, { message: long, errors: [{ detail: long }] });
    await page.locator("#history tr").waitFor();
    await fits(page, "the overview with a history");
    await page.locator("#history a").click();
    await page.locator("#failed-rows tr").waitFor();
    await page.locator("#raw-events summary").click();
    await page.locator("#raw-events li").first().waitFor();
    await fits(page, "a job that failed");
    await page.getByRole("button", { name: "Start a sync" }).click();
    await fits(page, "the form");
  });

  scenario("a phone of 320 pixels shows how jobs of NetBox end, and the NetBox listener", async (stack) => {
    const backend = stack.use(await replay("0.0.2.post1"));
    const bridge = await operated(stack, backend.url, { "backend.netbox_listen": "127.0.0.1:0" });
    const page = await open(stack, bridge.admin, { viewport: { width: 320, height: 640 }, isMobile: true });
    await page.getByText("How jobs of NetBox end").click();
    await page.getByText("GET /proxmox/firewall/summary").waitFor();
    await page.getByText("does not know yet where NetBox is").waitFor();
    await fits(page, "the job of NetBox");
  });

  scenario("every text can be read in light and in dark, and nothing moves for those who want that", async (stack) => {
    const { puppet, bridge } = await puppetAndBridge(stack);
    const page = await open(stack, bridge.admin, { reducedMotion: "reduce" });
    await start(page, VMS);
    const stream = await puppet.stream();
    stream.discover(["web01", "web02"]);
    await status(page, "Running");
    const moving = () => document.getAnimations().filter((one) => one.playState === "running").length;
    assert.equal(await page.evaluate(moving), 0);
    await page.emulateMedia({ reducedMotion: "no-preference" });
    assert.notEqual(await page.evaluate(moving), 0);
    await home(page);
    await page.locator("#running .card").waitFor();
    const grounds = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      grounds.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      assert.deepEqual(await page.evaluate(faintTexts), [], colorScheme);
    }
    assert.notEqual(grounds[0], grounds[1]);
    stream.vm("web01", "failed", { error: "It has no name." });
    stream.complete(false, { message: "It failed.", errors: [{ detail: "All of it." }] });
    await page.locator("#history a").click();
    await page.locator("#failed-rows tr").waitFor();
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await page.evaluate(faintTexts), [], colorScheme);
    }
  });

  scenario("controls have names, headings are in their order, and a page without JavaScript says so", async (stack) => {
    const { puppet, bridge } = await puppetAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    (await puppet.stream()).discover(["web01", "web02"]);
    await page.getByRole("progressbar", { name: "Virtual machines" }).waitFor();
    assert.deepEqual(await page.evaluate(nameless), []);
    await home(page);
    await page.locator("#running .card").waitFor();
    assert.deepEqual(await page.evaluate(nameless), []);
    const levels = await page.evaluate(() =>
      [...document.querySelectorAll("#home :is(h1, h2, h3)")].map((heading) => Number(heading.tagName[1])),
    );
    assert.ok(levels[0] === 1 && levels.every((level, at) => at === 0 || level <= levels[at - 1] + 1), `${levels}`);
    const plain = await visit(stack, bridge.admin, { javaScriptEnabled: false });
    // By no text: Playwright takes what is in there for none.
    await plain.locator("noscript p").waitFor();
    await plain.locator("noscript a", { hasText: "/jobs" }).click();
    await plain.waitForURL(/\/jobs$/);
  });
}

// What the element with the focus is called.
function focused(page) {
  return page.evaluate(() => {
    const { activeElement: here } = document;
    if (here === document.body) return "";
    return here.getAttribute("aria-label") ?? here.labels?.[0]?.firstChild.textContent.trim() ?? here.textContent.trim();
  });
}

async function tabTo(page, name) {
  const met = [];
  while (met.length < 60) {
    await page.keyboard.press("Tab");
    const here = await focused(page);
    if (here === name) return;
    met.push(here);
  }
  assert.fail(`${name} is not met by Tab: ${met}`);
}

async function fits(page, what) {
  await drawn(page);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 320, `${what} is ${width} pixels wide`);
}

// Controls and regions that have no name, in the page.
function nameless() {
  const controls = document.querySelectorAll("a[href], button, select, input, progress, dialog, [role=region]");
  const named = (control) =>
    control.getAttribute("aria-label") ?? document.getElementById(control.getAttribute("aria-labelledby"))?.textContent ?? control.labels?.[0]?.textContent ?? control.textContent;
  return [...controls].filter((control) => named(control).trim() === "").map((control) => control.outerHTML);
}

// Texts with less contrast than WCAG's AA wants, in the page.
function faintTexts() {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (node) => {
    for (let at = node; at !== null; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const light = (colour) => {
    const [red, green, blue] = colour.slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (node) => {
    const [one, other] = [light(rgba(getComputedStyle(node).color)), light(ground(node))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== "");
  const texts = [...document.querySelectorAll("body *")].filter((node) => hasText(node) && node.checkVisibility());
  if (texts.length < 20) return ["there is hardly a text"];
  return texts.filter((node) => contrast(node) < 4.5).map((node) => `${contrast(node).toFixed(2)} ${node.outerHTML}`);
}
