// A browser, what its user does with the page, and the bridges that the page is of.

import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { test } from "node:test";

import { PATIENCE, Puppet, Stack, folder, freeAddress, serve } from "./programs.mjs";

const { chromium } = createRequire(`${process.env.PEERS}/`)("playwright-core");

export const TOKEN = "a-token-that-nobody-guesses";
export const VMS = "virtual-machines";
export const AS_OPERATOR = { authorization: `Bearer ${TOKEN}` };

let browser;

export async function launch() {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

export const close = () => browser.close();

// A page of a browser of its own, of somebody who has signed in. What it complains about is in `complaints`.
export async function open(stack, address, options = {}) {
  const page = await visit(stack, `${address}/session`, options);
  await signIn(page);
  return page;
}

export async function signIn(page) {
  await page.getByLabel("Admin token").fill(TOKEN);
  await page.keyboard.press("Enter");
  await page.waitForURL(/:\d+\/$/);
}

// The same of somebody who has not.
export async function visit(stack, address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  stack.use({ end: () => context.close() });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (said) => said.type() === "error" && page.complaints.push(said.text()));
  await page.goto(address);
  return page;
}

// A test with everything that it starts, ended when it is over.
export function scenario(name, run) {
  test(name, { timeout: 2 * PATIENCE }, async () => {
    const stack = new Stack();
    try {
      await run(stack);
    } finally {
      await stack.end();
    }
  });
}

export async function puppetAndBridge(stack, settings) {
  const puppet = stack.use(await Puppet.start());
  return { puppet, bridge: await operated(stack, puppet.url, settings) };
}

// A bridge with a token, without which nobody may start anything.
export async function operated(stack, backend, settings) {
  return stack.use(await serve(backend, { ...settings, admin_token_file: await tokenFile(stack) }));
}

// One that is started by `again` as it was. Its sessions are of its address, too.
export async function restartable(stack) {
  const puppet = stack.use(await Puppet.start());
  const places = { listen: await freeAddress(), admin_listen: await freeAddress() };
  const settings = { ...places, data_dir: stack.use(await folder()).path };
  const again = () => operated(stack, puppet.url, settings);
  return { puppet, bridge: await again(), again };
}

export async function tokenFile(stack) {
  const file = path.join(stack.use(await folder()).path, "token");
  await writeFile(file, `${TOKEN}\n`, { mode: 0o600 });
  return file;
}

// Starts a sync by the button, on `backend` if there are several, and waits for its page.
export async function start(page, kind, key = "", backend = null) {
  const before = page.url();
  await page.getByRole("button", { name: "Start a sync" }).click();
  const dialog = page.getByRole("dialog", { name: "Start a sync" });
  if (backend !== null) await dialog.getByLabel(/^Backend/).selectOption(backend);
  await dialog.getByLabel("Kind").selectOption(kind);
  await dialog.getByLabel("API key").fill(key);
  await dialog.getByRole("button", { name: "Start", exact: true }).click();
  await page.waitForURL((url) => url.hash.startsWith("#/jobs/") && url.href !== before);
}

export const seen = (page, text) => page.getByText(text).first().waitFor();
export const status = (page, word) => page.locator("#job-status", { hasText: new RegExp(`^${word}$`) }).waitFor();
export const barIs = (page, value) => page.waitForFunction((value) => document.querySelector("#job-bars progress")?.value === value, value);
export const home = (page) => page.getByRole("link", { name: "All syncs" }).click();

// Waits until nothing more is to be drawn.
export const drawn = (page) => page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
