// Screenshots of the page with two running syncs, and of a failed one.

import { mkdir } from "node:fs/promises";
import path from "node:path";

import { VMS, barIs, close, nextFrame, home, launch, open, start, status, tokenFile } from "./browser.mjs";
import { ManualBackend, Stack, folder, replay, serveWithFile } from "./programs.mjs";

const NAMES = ["web01", "web02", "db01", "app-01.lab.example", "win2022", "café-münchen", "worker00", "worker01", "dns01", "cache01"];

export async function takeScreenshots(place) {
  await mkdir(place, { recursive: true });
  await launch();
  const stack = new Stack();
  try {
    await capturePages(place, stack);
  } finally {
    await stack.end();
    await close();
  }
}

// A bridge with a replayed backend and a manual one.
async function startRecordedBridge(stack, backend) {
  const place = stack.use(await folder());
  const recorded = stack.use(await replay("0.0.11.post2", "--speed", "2"));
  const text = `
    listen = "127.0.0.1:0"
    admin_listen = "127.0.0.1:0"
    admin_token_file = "${await tokenFile(stack)}"
    data_dir = "${place.path}"
    [[backend]]
    name = "frankfurt"
    url = "${recorded.url}"
    hosts = ["frankfurt.example"]
    [[backend]]
    name = "lab"
    url = "${backend.url}"
    hosts = ["lab.example"]
  `;
  return stack.use(await serveWithFile(text, place));
}

async function capturePages(place, stack) {
  const backend = stack.use(await ManualBackend.start());
  const bridge = await startRecordedBridge(stack, backend);
  const capture = async (page, name) => {
    await nextFrame(page);
    await page.screenshot({ path: path.join(place, `${name}.png`) });
  };
  const page = await open(stack, bridge.admin);
  await start(page, "devices", "any", "frankfurt");
  await status(page, "Completed");
  await start(page, VMS, "", "lab");
  failSync(await backend.stream());
  await status(page, "Failed");
  await page.emulateMedia({ colorScheme: "dark" });
  await capture(page, "failed");
  await page.emulateMedia({ colorScheme: "light" });
  await start(page, "storage", "any", "frankfurt");
  await status(page, "Completed");
  await start(page, VMS, "", "lab");
  runSync(await backend.stream());
  await barIs(page, 7);
  await start(page, "full-update", "any", "frankfurt");
  // The second bar: the devices are done.
  await page.locator("#job-bars .bar").nth(1).waitFor();
  await home(page);
  await page.locator("#running .card").getByText("6 of 10").waitFor();
  await page.locator("#history tr").first().waitFor();
  await capture(page, "running");
  const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
  const small = await open(stack, bridge.admin, phone);
  await small.locator("#running .card").getByText("6 of 10").waitFor();
  await small.locator("#history tr").first().waitFor();
  await capture(small, "phone");
}

function failSync(stream) {
  const error = "400 Bad Request: {'cluster': ['Cluster lab-cluster has no site.']}";
  stream.discover(NAMES);
  const errorOf = (at) => (at < NAMES.length - 1 ? error : "504 Gateway Timeout");
  NAMES.forEach((name, at) => (at < 4 ? stream.vm(name, "completed") : stream.vm(name, "failed", { error: errorOf(at) })));
  stream.complete(false, { message: "6 of 10 virtual machines failed.", errors: [{ detail: `NetBox refused 6 objects: ${error}` }] });
}

function runSync(stream) {
  stream.discover(NAMES);
  for (const name of NAMES) stream.vm(name, "progress");
  for (const name of NAMES.slice(0, 6)) stream.vm(name, "completed");
  stream.vm(NAMES[6], "failed", { error: "504 Gateway Timeout" });
}
