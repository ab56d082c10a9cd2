// Tests of what the page shows of syncs, and of its actions.

import assert from "node:assert/strict";

import { AS_OPERATOR, VMS, barIs, nextFrame, home, open, startBridge, startBackendAndBridge, scenario, shows, start, status, tokenFile } from "./browser.mjs";
import { ManualBackend, folder, freeAddress, replay, serveWithFile } from "./programs.mjs";

export function testSyncs() {
  scenario("a sync that was started in the form shows its progress, and is in the history when it has ended", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await shows(page, "No sync has ended yet.");
    await start(page, VMS, "a-key-of-the-backend");
    const stream = await backend.stream();
    assert.equal(stream.headers["x-proxbox-api-key"], "a-key-of-the-backend");
    await status(page, "Running");
    stream.discover(["web01", "web02", "db01", "db02"]);
    for (const [at, name] of ["web01", "web02", "db01"].entries()) {
      stream.vm(name, "completed");
      await barIs(page, at + 1);
      await page.locator("#timeline").getByText(`Synced virtual_machine ${name}`).waitFor();
    }
    await home(page);
    const card = page.locator("#running .card");
    await card.getByText("3 of 4").waitFor();
    stream.vm("db02", "failed", { error: "It has no name." });
    await card.getByText("1 failed").waitFor();
    await card.getByText("3 of 4").waitFor();
    stream.complete();
    await page.locator("#history tr", { hasText: "Completed with failures" }).getByText("3 of 4").waitFor();
    await shows(page, "No sync is running or queued.");
    await page.locator("#history a").click();
    await status(page, "Completed with failures");
    await page.locator("#details").getByText("Requested", { exact: true }).waitFor();
    await page.locator("#job-bars .bar").getByText("3 of 4").waitFor();
    await page.getByRole("table").getByRole("cell", { name: "It has no name." }).waitFor();
    assert.equal(await page.evaluate(() => document.querySelector("#start-form [name=key]").value), "");
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
    assert.deepEqual(page.errors, []);
  });

  scenario("a replayed full update of the oldest release shows its progress and a complete timeline", async (stack) => {
    const backend = stack.use(await replay("0.0.2.post1", "--speed", "1"));
    const bridge = await startBridge(stack, backend.url);
    const page = await open(stack, bridge.admin);
    await page.evaluate(() => {
      window.values = new Set();
      new MutationObserver(() => {
        for (const bar of document.querySelectorAll("#job-bars progress")) window.values.add(`${bar.value} of ${bar.max}`);
      }).observe(document.querySelector("#job-bars"), { subtree: true, childList: true, attributes: true });
    });
    await start(page, "full-update");
    await status(page, "Completed, 3 unconfirmed");
    const values = await page.evaluate(() => [...window.values]);
    assert.ok(values.filter((value) => value.endsWith(" of 12")).length >= 3, `it moved: ${values}`);
    await page.locator("#job-bars .bar", { hasText: "Virtual machines" }).getByText("12 of 12").waitFor();
    await page.locator("#job-bars .bar", { hasText: "Devices" }).getByText("3 unconfirmed").waitFor();
    const entries = page.locator("#timeline li");
    await entries.filter({ hasText: "Full update sync completed." }).waitFor();
    assert.equal(await entries.count(), 40);
    await home(page);
    const kinds = page.locator(".backends .lines li");
    await kinds.filter({ hasText: "Full update" }).getByText("/ws").waitFor();
    await kinds.filter({ hasText: "Full update" }).getByText("without storage, virtual disks").waitFor();
    await kinds.filter({ hasText: "Snapshots" }).getByText("not supported").waitFor();
    await page.getByText("Outcomes of NetBox jobs").click();
    const devices = kinds.filter({ hasText: "errored" }).first();
    await devices.getByText("reads its Proxmox credentials from NetBox").waitFor();
    await kinds.filter({ hasText: "GET /health" }).getByText("emulated").waitFor();
    assert.deepEqual(page.errors, []);
  });

  scenario("the NetBox listener shows the address of NetBox, its requests, and what is missing", async (stack) => {
    const backend = stack.use(await replay("0.0.2.post1"));
    const settings = { "backend.netbox_listen": "127.0.0.1:0" };
    const bridge = await startBridge(stack, backend.url, settings);
    const page = await open(stack, bridge.admin);
    const listener = page.locator(".backends .listener");
    await listener.getByText("does not know yet where NetBox is").waitFor();
    await listener.getByText("none since the bridge started").waitFor();
    await listener.getByText("Unchanged requests").waitFor();

    // A manual backend stands in for NetBox: it answers any request.
    const netbox = stack.use(await ManualBackend.start());
    const other = await startBridge(stack, backend.url, { ...settings, "backend.netbox_url": netbox.url });
    const answered = await fetch(`http://${other.addresses["backend.netbox_listen"]}/api/status/`, {
      headers: { authorization: "Token nbt_key.s3cret-value" },
    });
    assert.equal(answered.status, 200);
    const later = await open(stack, other.admin);
    const used = later.locator(".backends .listener");
    await used.getByText("NetBox listener").click();
    await used.getByText(`${netbox.url} (backend.netbox_url)`).waitFor();
    // Requests count only with a token that was pushed to the backend.
    await used.getByText("none since the bridge started").waitFor();
    await used.locator("li", { hasText: "Changed by netbox_token" }).getByText("1").waitFor();
    assert.ok(!(await later.content()).includes("s3cret-value"));
    assert.deepEqual([...page.errors, ...later.errors], []);
  });

  scenario("a page that is opened later shows the timeline from its beginning, and every entry once", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01", "web02", "db01"]);
    for (const name of ["web01", "web02"]) stream.vm(name, "completed");
    const synced = (name) => page.locator("#timeline").getByText(`Synced virtual_machine ${name}`);
    await synced("web02").waitFor();
    await barIs(page, 2);
    await page.reload();
    await synced("web02").waitFor();
    stream.vm("db01", "completed");
    await synced("db01").waitFor();
    await nextFrame(page);
    for (const name of ["web01", "web02", "db01"]) {
      assert.equal(await synced(name).count(), 1);
    }
    stream.complete();
    await status(page, "Completed");
    assert.deepEqual(page.errors, []);
  });

  scenario("a failed sync shows the cause, its source, and a hint", async (stack) => {
    const backend = stack.use(await replay("0.0.11.post2", "--speed", "max", "--cut-after", "40", "--api-key", "right"));
    const bridge = await startBridge(stack, backend.url);
    const page = await open(stack, bridge.admin);
    await start(page, VMS, "right");
    await status(page, "Errored");
    await page.getByRole("heading", { name: "Backend lost" }).waitFor();
    const job = await (await fetch(bridge.admin + page.url().split("#")[1])).json();
    assert.equal(job.cause, "backend_lost");
    const summary = await page.locator("#job-failure").innerText();
    for (const part of [job.message, job.error, "Caused by the backend.", "Check that the backend is running"]) {
      assert.ok(summary.includes(part), `${part}: ${summary}`);
    }
    await start(page, VMS);
    await page.getByRole("heading", { name: "Key refused" }).waitFor();
    // No more than once.
    const required = "API key required. Send it as X-Proxbox-API-Key, or configure backend.api_key_file.";
    assert.equal(await page.locator("#failure-message").textContent(), required);
    await start(page, VMS, "wrong");
    await page.getByRole("heading", { name: "Key refused" }).waitFor();
    await shows(page, "Start the sync again with the API key of the backend");
    await home(page);
    await page.locator("#history tr", { hasText: "Errored" }).getByText(job.message).waitFor();
    assert.deepEqual(page.errors, []);
  });

  scenario("a backend that cannot be reached is named once in the notice about it", async (stack) => {
    const address = await freeAddress();
    const bridge = await startBridge(stack, `http://${address}`);
    const page = await open(stack, bridge.admin);
    await page.locator("#reasons p").waitFor();
    const notice = await page.locator("#reasons").textContent();
    assert.match(notice, /^Backend [\d.:]+ is unreachable: Connection refused/);
    assert.equal(notice.split(address).length, 2, notice);
    await page.locator(".backends .quoted").getByText(/^Connection refused/).waitFor();
    assert.deepEqual(page.errors, []);
  });

  scenario("a sync is cancelled by the button after a confirmation", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01", "web02"]);
    await page.getByRole("button", { name: "Cancel" }).click();
    const dialog = page.getByRole("dialog", { name: "Cancel this sync?" });
    await dialog.getByText("Virtual machines on").waitFor();
    await dialog.getByRole("button", { name: "Keep running" }).click();
    stream.vm("web01", "completed");
    await barIs(page, 1);
    await page.getByRole("button", { name: "Cancel" }).click();
    await dialog.getByRole("button", { name: "Cancel the sync" }).click();
    await stream.closed;
    await status(page, "Cancelled");
    await page.getByRole("heading", { name: "Cancel requested" }).waitFor();
    await page.locator("#job-failure").getByText("Cancelled by operator.").waitFor();
    assert.equal(await page.locator("#job-cancel").isVisible(), false);
    assert.deepEqual(page.errors, []);
  });

  scenario("filters are in the address, and a button loads the rest of a long history", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    for (let made = 0; made < 30; made += 1) {
      const answer = await fetch(`${bridge.admin}/sync/${VMS}/`, { method: "POST", headers: AS_OPERATOR });
      const stream = await backend.stream();
      stream.complete(made % 10 !== 0);
      await ended(bridge, (await answer.json()).id);
    }
    const page = await open(stack, bridge.admin);
    const filters = page.locator("#filters");
    await page.waitForFunction(() => document.querySelectorAll("#history tr").length === 25);
    await page.getByRole("button", { name: "Load more" }).click();
    await page.waitForFunction(() => document.querySelectorAll("#history tr").length === 30);
    await filters.getByLabel("Outcome").selectOption("Failed or errored");
    await page.waitForFunction(() => document.querySelectorAll("#history tr").length === 3);
    assert.match(page.url(), /#\/\?outcome=errored$/);
    await page.locator("#history a").first().click();
    await status(page, "Failed");
    await home(page);
    await page.waitForFunction(() => document.querySelectorAll("#history tr").length === 3);
    await page.reload();
    await page.waitForFunction(() => document.querySelectorAll("#history tr").length === 3);
    assert.equal(await filters.getByLabel("Outcome").inputValue(), "errored");
    await filters.getByLabel("Kind").selectOption("Devices");
    await shows(page, "No sync matches the filter.");
    await page.getByRole("button", { name: "Clear" }).click();
    await page.waitForFunction(() => document.querySelectorAll("#history tr").length >= 25);
    assert.deepEqual(page.errors, []);
  });

  scenario("raw messages are shown on request, and their limit is stated", async (stack) => {
    const place = stack.use(await folder());
    const { backend, bridge } = await startBackendAndBridge(stack, { data_dir: place.path, "jobs.recording": "on" });
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    const stream = await backend.stream();
    stream.discover(["web01"]);
    await page.locator("#raw-events summary").click();
    await page.locator("#raw-events li", { hasText: "event: step" }).first().waitFor();
    // More than the page shows.
    for (let at = 0; at < 5000; at += 1) stream.vm(`vm-${at}`, "completed");
    await page.locator("#raw-events").getByText("vm-4999").waitFor();
    await page.locator("#timeline").getByText("vm-4999").waitFor();
    await nextFrame(page);
    assert.equal(await page.locator("#raw-events li").count(), 500);
    assert.equal(await page.locator("#timeline li").count(), 500);
    await page.locator("#raw-events .left-out", { hasText: /newest 500 of 5,\d\d\d events/ }).waitFor();
    await page.locator("#timeline-note", { hasText: /newest 500 of 5,\d\d\d entries/ }).waitFor();
    stream.complete();
    await status(page, "Completed");
    await page.locator("#raw-events li", { hasText: "event: complete" }).waitFor();
    await page.locator("#raw-recording summary").click();
    await page.locator("#raw-recording").getByText('"kind":"end"').waitFor();
    await page.locator("#raw-recording .left-out", { hasText: "newest 500 of" }).waitFor();
    assert.deepEqual(page.errors, []);
  });

  scenario("without a recording, the page names the setting", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await start(page, VMS);
    (await backend.stream()).complete();
    await status(page, "Completed");
    await page.locator("#raw-recording summary").click();
    await page.locator("#raw-recording .notice", { hasText: "jobs.recording" }).waitFor();
    assert.equal(await page.locator("#recording-file").isVisible(), false);
  });

  scenario("the last success of each kind is shown with its age, and marked when it is old", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await shows(page, "No sync has ended yet.");
    assert.equal(await page.getByRole("heading", { name: "Last success of each kind" }).isVisible(), false);
    for (const kind of ["full-update", VMS, "snapshots", "sdn"]) {
      await start(page, kind);
      const stream = await backend.stream();
      if (kind === VMS) {
        stream.discover(["web01", "web02", "web03"]);
        for (const name of ["web01", "web02"]) stream.vm(name, name === "web01" ? "completed" : "failed", { error: "It is locked." });
      }
      stream.complete();
      await status(page, kind === VMS ? "Completed with failures" : "Completed");
    }
    await home(page);
    const successes = page.locator("#freshness li li");
    await successes.filter({ hasText: "Virtual machines" }).getByText("1 failed, 1 unconfirmed").waitFor();
    assert.equal(await page.locator("#freshness .old").count(), 0);
    // The full update has run the snapshots since, and does not run SDN.
    await age(page, { "full-update": 25, [VMS]: 1, snapshots: 48, sdn: 27 });
    await page.reload();
    await successes.filter({ hasText: "SDN" }).getByText("1 day 3 h ago").waitFor();
    await successes.filter({ hasText: "Full update" }).getByText("1 day 1 h ago").waitFor();
    assert.deepEqual(await page.locator("#freshness .old a").allTextContents(), ["SDN"]);
    await successes.getByRole("link", { name: "Virtual machines" }).click();
    await status(page, "Completed with failures");
    assert.deepEqual(page.errors, []);
  });

  scenario("the form and the history distinguish several backends", async (stack) => {
    const place = stack.use(await folder());
    const backends = [stack.use(await ManualBackend.start()), stack.use(await ManualBackend.start())];
    const blocks = backends.map(({ url }, at) => `[[backend]]\nname = "lab-${at}"\nurl = "${url}"\nhosts = ["lab-${at}.example"]\n`);
    const text = `listen = "127.0.0.1:0"\nadmin_listen = "127.0.0.1:0"\nadmin_token_file = "${await tokenFile(stack)}"\n${blocks.join("\n")}`;
    const bridge = stack.use(await serveWithFile(text, place));
    const page = await open(stack, bridge.admin);
    await start(page, VMS, "", "lab-1");
    (await backends[1].stream()).complete();
    await status(page, "Completed");
    await page.locator("#details").getByText(`lab-1 (${backends[1].url})`).waitFor();
    await home(page);
    await page.locator("#backends").getByRole("heading", { name: "lab-0" }).waitFor();
    const card = page.locator("#backends > li", { hasText: "lab-1" });
    await card.getByText(`${bridge.addresses.listen}, as lab-1.example`).waitFor();
    await page.locator("#history tr").getByText("lab-1").waitFor();
    await page.locator("#filters").getByLabel("Backend").selectOption("lab-0");
    await shows(page, "No sync matches the filter.");
    assert.deepEqual(page.errors, []);
  });
}

// Gives the last success of each kind in /backends another age, in hours.
async function age(page, hours) {
  await page.route("**/backends", async (route) => {
    const response = await route.fetch();
    const backends = await response.json();
    for (const { last_success: last, kind } of backends.results.flatMap(({ kinds }) => kinds)) {
      if (last !== null) last.time = new Date(Date.now() - hours[kind] * 3_600_000).toISOString();
    }
    await route.fulfill({ response, json: backends });
  });
}

async function ended(bridge, id) {
  const answer = await fetch(`${bridge.admin}/jobs/${id}/events`);
  // The stream ends with the job.
  await answer.text();
}
