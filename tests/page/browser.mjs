// The browser, actions on the page, and bridges to open the page of.

import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { test } from "node:test";

import { TIMEOUT, ManualBackend, Stack, folder, freeAddress, serve } from "./programs.mjs";

const { chromium } = createRequire(path.resolve(process.env.PEERS, "package.json"))("playwright-core");

export const TOKEN = "the-operator-token";
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

// Opens the page in a new browser context and signs in. JavaScript and console errors are in `page.errors`.
export async function open(stack, address, options = {}) {
  const page = await openSignedOut(stack, `${address}/session`, options);
  await signIn(page);
  return page;
}

export async function signIn(page) {
  await page.getByLabel("Admin token").fill(TOKEN);
  await page.keyboard.press("Enter");
  await page.waitForURL(/:\d+\/$/);
}

// Opens `address` in a new browser context, without signing in.
export async function openSignedOut(stack, address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  stack.use({ end: () => context.close() });
  context.setDefaultTimeout(TIMEOUT);
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && page.errors.push(message.text()));
  await page.goto(address);
  return page;
}

// Defines a test. What it adds to its stack is ended with it.
export function scenario(name, run) {
  test(name, { timeout: 2 * TIMEOUT }, async () => {
    const stack = new Stack();
    try {
      await run(stack);
    } finally {
      await stack.end();
    }
  });
}

export async function startBackendAndBridge(stack, settings) {
  const backend = stack.use(await ManualBackend.start());
  return { backend, bridge: await startBridge(stack, backend.url, settings) };
}

// Starts a bridge with the operator token.
export async function startBridge(stack, backend, settings) {
  return stack.use(await serve(backend, { ...settings, admin_token_file: await tokenFile(stack) }));
}

// Starts a bridge that `restart` starts again with the same settings. Sessions depend on the address, so it is fixed.
export async function startRestartableBridge(stack) {
  const backend = stack.use(await ManualBackend.start());
  const places = { listen: await freeAddress(), admin_listen: await freeAddress() };
  const settings = { ...places, data_dir: stack.use(await folder()).path };
  const restart = () => startBridge(stack, backend.url, settings);
  return { backend, bridge: await restart(), restart };
}

export async function tokenFile(stack) {
  const file = path.join(stack.use(await folder()).path, "token");
  await writeFile(file, `${TOKEN}\n`, { mode: 0o600 });
  return file;
}

// Starts a sync in the form, on `backend` if there are several, and waits for the page of its job.
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

export const shows = (page, text) => page.getByText(text).first().waitFor();
export const status = (page, text) => page.locator("#job-status", { hasText: new RegExp(`^${text}$`) }).waitFor();
export const barIs = (page, value) => page.waitForFunction((value) => document.querySelector("#job-bars progress")?.value === value, value);
export const home = (page) => page.getByRole("link", { name: "All syncs" }).click();

// Waits until scheduled draws are done.
export const nextFrame = (page) => page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
