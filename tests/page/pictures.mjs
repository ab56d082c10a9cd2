// Pictures of the page, of two syncs that run and of one that has failed.

import { mkdir } from "node:fs/promises";
import path from "node:path";

import { VMS, barIs, close, drawn, home, launch, open, start, status, tokenFile } from "./browser.mjs";
import { Puppet, Stack, folder, replay, serveFile } from "./programs.mjs";

const NAMES = ["web01", "web02", "db01", "app-01.lab.example", "win2022", "café-münchen", "worker00", "worker01", "dns01", "cache01"];

export async function takePictures(place) {
  await mkdir(place, { recursive: true });
  await launch();
  const stack = new Stack();
  try {
    await pictures(place, stack);
  } finally {
    await stack.end();
    await close();
  }
}

// A bridge in front of a recorded backend, and of one that does what makes a picture.
async function pictured(stack, puppet) {
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
    url = "${puppet.url}"
    hosts = ["lab.example"]
  `;
  return stack.use(await serveFile(text, place));
}

async function pictures(place, stack) {
  const puppet = stack.use(await Puppet.start());
  const bridge = await pictured(stack, puppet);
  const shoot = async (page, name) => {
    await drawn(page);
    await page.screenshot({ path: path.join(place, `${name}.png`) });
  };
  const page = await open(stack, bridge.admin);
  await start(page, "devices", "any", "frankfurt");
  await status(page, "Completed");
  await start(page, VMS, "", "lab");
  fail(await puppet.stream());
  await status(page, "Failed");
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot(page, "failed");
  await page.emulateMedia({ colorScheme: "light" });
  await start(page, "storage", "any", "frankfurt");
  await status(page, "Completed");
  await start(page, VMS, "", "lab");
  work(await puppet.stream());
  await barIs(page, 7);
  await start(page, "full-update", "any", "frankfurt");
  // The devices are done and the virtual machines begin.
  await page.locator("#job-bars .bar").nth(1).waitFor();
  await home(page);
  await page.locator("#running .card").getByText("7 of 10").waitFor();
  await page.locator("#history tr").first().waitFor();
  await shoot(page, "running");
  const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
  const small = await open(stack, bridge.admin, phone);
  await small.locator("#running .card").getByText("7 of 10").waitFor();
  await small.locator("#history tr").first().waitFor();
  await shoot(small, "phone");
}

function fail(stream) {
  const error = "400 Bad Request: {'cluster': ['Cluster lab-cluster has no site.']}";
  stream.discover(NAMES);
  NAMES.forEach((name, at) => (at < 4 ? stream.vm(name, "completed") : stream.vm(name, "failed", { error })));
  stream.complete(false, { message: "6 of 10 virtual machines failed.", errors: [{ detail: `NetBox refused 6 objects: ${error}` }] });
}

function work(stream) {
  stream.discover(NAMES);
  for (const name of NAMES) stream.vm(name, "progress");
  for (const name of NAMES.slice(0, 6)) stream.vm(name, "completed");
  stream.vm(NAMES[6], "failed", { error: "504 Gateway Timeout" });
}
