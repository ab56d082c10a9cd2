// Tests of failed objects, of the timeline, and of running a sync again.

import assert from "node:assert/strict";

import { AS_OPERATOR, VMS, home, open, scenario, shows, start, startBackendAndBridge, startBridge, status } from "./browser.mjs";
import { folder, replay } from "./programs.mjs";

const rows = (page) => page.locator("#failed-rows tr");
const hasRows = (page, wanted) => page.waitForFunction((wanted) => document.querySelectorAll("#failed-rows tr").length === wanted, wanted);

export function testObjects() {
  scenario("all failed objects are listed while the job runs, by error, found by a search, and downloaded", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    const names = Array.from({ length: 90 }, (_, at) => `vm-${at}`);
    stream.discover(["web01", ...names]);
    stream.vm("web01", "completed");
    const fail = (from, to) => {
      for (const name of names.slice(from, to)) stream.vm(name, "failed", { error: name === "vm-7" ? "It is locked." : "No such cluster." });
    };
    fail(0, 40);
    await hasRows(page, 40);
    const groups = page.locator("#failed-groups li");
    await groups.filter({ hasText: "No such cluster." }).getByText("39").waitFor();
    fail(40, 80);
    await hasRows(page, 80);
    await groups.filter({ hasText: "No such cluster." }).getByText("79").waitFor();
    await status(page, "Running");

    await groups.getByRole("button", { name: "It is locked." }).click();
    await hasRows(page, 1);
    await rows(page).getByText("vm-7").waitFor();
    // Objects that fail now are listed if they match.
    const search = page.locator("#failed").getByLabel("Search");
    await groups.getByRole("button", { name: "It is locked." }).click();
    await search.fill("VM-8");
    await hasRows(page, 1);
    fail(80, 90);
    await hasRows(page, 11);
    await search.fill("no such thing");
    await page.locator("#failed").getByText("No failed object matches.").waitFor();
    await search.fill("");
    await hasRows(page, 90);

    stream.complete();
    await status(page, "Completed with failures");
    for (const [name, lines] of [["CSV", 91], ["NDJSON", 90]]) {
      const started = page.waitForEvent("download");
      await page.locator("#failed").getByRole("link", { name, exact: true }).click();
      const file = await started;
      assert.match(file.suggestedFilename(), new RegExp(`^failed-.*\\.${name.toLowerCase()}$`));
      const text = await read(file);
      assert.equal(text.trim().split("\n").length, lines, name);
    }
    assert.deepEqual(page.errors, []);
  });

  scenario("more failed objects than one page has are loaded on request, and those that are not kept are counted", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack, { data_dir: stack.use(await folder()).path, "jobs.failed_objects": "450" });
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    const names = Array.from({ length: 500 }, (_, at) => `vm-${at}`);
    stream.discover(names);
    for (const name of names) stream.vm(name, "failed", { error: "No such cluster." });
    stream.complete();
    await status(page, "Failed");
    await hasRows(page, 200);
    const more = page.locator("#failed").getByRole("button", { name: "Load more" });
    await more.click();
    await hasRows(page, 400);
    await more.click();
    await hasRows(page, 450);
    await more.waitFor({ state: "hidden" });
    await page.locator("#failed-note").getByText("50 more are not kept (jobs.failed_objects).").waitFor();
    // The search is over all of them, not over those that are shown.
    await page.reload();
    await hasRows(page, 200);
    await page.locator("#failed").getByLabel("Search").fill("vm-449");
    await hasRows(page, 1);
    assert.deepEqual(page.errors, []);
  });

  scenario("the timeline is filtered by level and text, also for entries that come later, and downloaded", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01", "web02", "db01", "db02"]);
    stream.vm("web01", "completed");
    stream.vm("db01", "failed", { error: "It has no name." });
    const entries = page.locator("#timeline li");
    await entries.getByText("Synced virtual_machine web01").waitFor();
    await page.locator("#timeline-filters").getByLabel("Entries").selectOption("Warnings and failures");
    await entries.getByText("It has no name.").waitFor();
    assert.equal(await entries.count(), 1);
    stream.vm("web02", "completed");
    stream.vm("db02", "failed", { error: "It is locked." });
    await entries.getByText("It is locked.").waitFor();
    assert.equal(await entries.count(), 2);
    await page.locator("#timeline-filters").getByLabel("Entries").selectOption("All");
    await page.locator("#timeline-filters").getByLabel("Search").fill("WEB0");
    await entries.getByText("Synced virtual_machine web02").waitFor();
    assert.equal(await entries.count(), 2);
    const started = page.waitForEvent("download");
    await page.getByRole("link", { name: "JSON", exact: true }).click();
    const job = JSON.parse(await read(await started));
    assert.ok(job.log_entries.some(({ message }) => message.includes("web01")));
    stream.complete();
    await status(page, "Completed with failures");
    assert.deepEqual(page.errors, []);
  });

  scenario("a sync that ended badly is run again with its kind and its query, and a good one is not offered", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    const post = (target) => fetch(`${bridge.admin}${target}`, { method: "POST", headers: AS_OPERATOR });
    const { id } = await (await post("/sync/virtual-machines/7/backups/?only=a,b%20c")).json();
    const first = await backend.stream();
    first.cut();
    await page.goto(`${bridge.admin}/#/jobs/${id}`);
    await status(page, "Errored");
    await page.getByRole("button", { name: "Run again" }).click();
    const dialog = page.getByRole("dialog", { name: "Run this sync again" });
    await dialog.getByText("Virtual machine 7.").waitFor();
    await dialog.getByText("only=a,b%20c").waitFor();
    await dialog.getByLabel("API key").fill("the-key");
    await dialog.getByRole("button", { name: "Run again" }).click();
    const second = await backend.stream();
    assert.equal(second.target, first.target);
    assert.match(second.target, /\/7\/backups\/create\/stream\?only=a,b%20c$/);
    assert.equal(second.headers["x-proxbox-api-key"], "the-key");
    await status(page, "Running");
    assert.equal(await page.locator("#job-again").isVisible(), false);
    second.complete();
    await status(page, "Completed");
    assert.equal(await page.locator("#job-again").isVisible(), false);
    // The form is for any sync again.
    await home(page);
    await start(page, "devices", "the-key");
    (await backend.stream()).complete();
    await status(page, "Completed");
    assert.deepEqual(page.errors, []);
  });

  scenario("the form offers the kinds that the backend supports, and no other", async (stack) => {
    const backend = stack.use(await replay("0.0.2.post1"));
    const bridge = await startBridge(stack, backend.url);
    const page = await open(stack, bridge.admin);
    const { results } = await (await fetch(`${bridge.admin}/backends`)).json();
    const supported = results[0].kinds.filter(({ channel }) => channel !== null).map(({ kind }) => kind);
    assert.ok(supported.length > 0 && supported.length < results[0].kinds.length, `${supported}`);
    await page.locator(".backends .lines li").first().waitFor();
    await page.getByRole("button", { name: "Start a sync" }).click();
    const kinds = page.getByRole("dialog").getByLabel("Kind").locator("option");
    assert.deepEqual(await kinds.evaluateAll((options) => options.map((option) => option.value)), supported);

    const modern = stack.use(await replay("0.0.30.post2"));
    const other = await startBridge(stack, modern.url);
    const later = await open(stack, other.admin);
    await later.getByRole("button", { name: "Start a sync" }).click();
    const all = later.getByRole("dialog").getByLabel("Kind").locator("option");
    // Its capabilities are not known before a client has sent a key.
    await all.nth(13).waitFor({ state: "attached" });
    assert.equal(await all.count(), 14);
    assert.deepEqual([...page.errors, ...later.errors], []);
  });

  scenario("a sync with unconfirmed objects is no clean one, and the title names the backend and the time", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack, { "backend.name": "lab" });
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01", "web02", "web03"]);
    stream.vm("web01", "completed");
    await page.waitForFunction(() => /^Virtual machines: running – lab – \d+ \w+, \d\d:\d\d – proxbox-bridge$/.test(document.title));
    stream.complete();
    await status(page, "Completed, 2 unconfirmed");
    const softer = await page.locator("#job-status .status").evaluate((node) => getComputedStyle(node, "::before").backgroundColor);
    await home(page);
    await page.locator("#history tr", { hasText: "Completed, 2 unconfirmed" }).waitFor();
    await start(page, VMS);
    (await backend.stream()).complete();
    await status(page, "Completed");
    const clean = await page.locator("#job-status .status").evaluate((node) => getComputedStyle(node, "::before").backgroundColor);
    assert.notEqual(softer, clean);
    await home(page);
    await page.locator("#filters").getByLabel("Objects").selectOption("With failures");
    await shows(page, "No sync matches the filter.");
    assert.match(page.url(), /failed=true$/);
    assert.deepEqual(page.errors, []);
  });
}

async function read(download) {
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
