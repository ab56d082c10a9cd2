// Tests of the security of the page.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import path from "node:path";

import { AS_OPERATOR, VMS, nextFrame, home, open, startBackendAndBridge, startBridge, scenario, shows, signIn, start, status, openSignedOut } from "./browser.mjs";
import { ManualBackend, folder, serve } from "./programs.mjs";

export function testTrust() {
  scenario("names are shown as text only", async (stack) => {
    const place = stack.use(await folder());
    const { backend, bridge } = await startBackendAndBridge(stack, { data_dir: place.path, "jobs.recording": "on" });
    const image = "<img src=x onerror=window.hacked=1>";
    // The bridge removes markup from backend messages. This is no tag yet, but would be an image before the next `>`.
    const unclosedImage = "<img src=x onerror=window.hacked=2 alt=";
    // This becomes an image once the markup is removed and the entities are decoded.
    const encodedImage = "<b></b>&lt;img src=x onerror=window.hacked=1&gt;";
    const link = "javascript:window.hacked=3//\u202e";
    const page = await open(stack, bridge.admin);
    const headers = { ...AS_OPERATOR, "x-proxbox-actor": image };
    const response = await fetch(`${bridge.admin}/sync/${VMS}/?x=${image}`, { method: "POST", headers });
    const { url } = await response.json();
    const stream = await backend.stream();
    stream.discover([unclosedImage, encodedImage, link]);
    stream.vm(unclosedImage, "completed");
    await page.locator("#running .card").getByText(image).waitFor();
    await page.goto(`${bridge.admin}/#${url}`);
    await page.locator("#timeline").getByText(unclosedImage).waitFor();
    await page.locator("#raw-events summary").click();
    await page.locator("#raw-events").getByText(unclosedImage).first().waitFor();
    stream.vm(encodedImage, "failed", { error: encodedImage });
    stream.vm(link, "failed", { error: link });
    stream.send("<script>window.hacked=4</script>", { name: image });
    stream.complete(false, { message: encodedImage, errors: [{ detail: `${encodedImage} ${link}` }] });
    await status(page, "Failed");
    await page.locator("#failed-rows").getByText(image).first().waitFor();
    await page.locator("#failed-rows").getByText(link).first().waitFor();
    await page.locator("#job-failure").getByText(image).first().waitFor();
    await page.locator("#details").getByText(image).first().waitFor();
    await page.locator("#raw-recording summary").click();
    await page.locator("#raw-recording").getByText("<script>window.hacked=4</script>").waitFor();
    assert.deepEqual(await page.evaluate(injected), []);
    await home(page);
    await page.locator("#history .message").getByText(image).waitFor();
    await page.locator("#history .about").getByText(image).waitFor();
    await page.goto(`${bridge.admin}/#/jobs/${encodeURIComponent(image)}`);
    await shows(page, "Invalid job id.");
    await page.goto(`${bridge.admin}/#/?kind=${encodeURIComponent(image)}`);
    await page.locator("#history-error").getByText(encodeURIComponent(image)).waitFor();
    await nextFrame(page);
    assert.deepEqual(await page.evaluate(injected), []);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    // The browser logs the two refused requests.
    const isRefusal = (error) => error.startsWith("Failed to load resource: the server responded with a status of 400");
    assert.deepEqual(page.errors.filter((error) => !isRefusal(error)), []);
  });

  scenario("the content security policy blocks injected scripts and handlers", async (stack) => {
    const { bridge } = await startBackendAndBridge(stack);
    const page = await open(stack, bridge.admin);
    await page.evaluate(() => {
      const hole = document.createElement("div");
      hole.innerHTML = "<img src=x onerror=window.hacked=1>";
      document.body.append(hole);
      const script = document.createElement("script");
      script.textContent = "window.hacked=2";
      document.body.append(script);
    });
    await page.waitForFunction(() => document.querySelector("main + * ~ div img, body > div img").complete);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.ok(page.errors.some((error) => error.includes("Content Security Policy")), `${page.errors}`);
  });

  scenario("the page requires the operator token where reads are not open", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack, { admin_open_reads: "off" });
    const page = await openSignedOut(stack, bridge.admin);
    const token = page.getByLabel("Admin token");
    await token.fill("not the right one");
    await page.getByRole("button", { name: "Sign in" }).click();
    await shows(page, "Wrong admin token.");
    await signIn(page);
    assert.equal(await page.evaluate(() => document.cookie), "");
    await start(page, VMS);
    (await backend.stream()).complete();
    await status(page, "Completed");
    await page.getByRole("button", { name: "Sign out" }).click();
    await token.waitFor();
    const other = await openSignedOut(stack, bridge.admin);
    await other.getByLabel("Admin token").waitFor();
    assert.equal(await other.locator("#home").count(), 0);
  });

  scenario("a page whose session has ended says so, and asks nothing more", async (stack) => {
    const { bridge } = await startBackendAndBridge(stack, { admin_open_reads: "off" });
    const page = await open(stack, bridge.admin);
    await shows(page, "No sync has ended yet.");
    await page.context().clearCookies();
    const requests = [];
    page.on("request", (request) => requests.push(request.url()));
    await page.getByRole("link", { name: "API (OpenAPI)" }).waitFor();
    await page.locator("#filters").getByLabel("Since").selectOption("Last hour");
    await shows(page, "You are signed out.");
    await page.getByText("Not connected since").waitFor();
    // What follows without a request: other filters, polls, and a page that was hidden.
    const before = requests.length;
    await page.locator("#filters").getByLabel("Since").selectOption("Last 24 hours");
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await page.locator("#history-error").getByText("You are signed out.").waitFor();
    assert.equal(requests.length, before);
    await page.locator("#connection").getByRole("link", { name: "Sign in" }).click();
    await signIn(page);
    await shows(page, "No sync has ended yet.");
  });

  scenario("a signed-out reader gets a link to sign in instead of actions", async (stack) => {
    const { backend, bridge } = await startBackendAndBridge(stack);
    const page = await openSignedOut(stack, bridge.admin);
    const link = page.getByRole("link", { name: "Sign in to start and cancel syncs" });
    await link.waitFor();
    await fetch(`${bridge.admin}/sync/${VMS}/`, { method: "POST", headers: AS_OPERATOR });
    (await backend.stream()).discover(["web01"]);
    await page.locator("#running .card").waitFor();
    assert.equal(await page.getByRole("button", { name: /Start|Cancel/ }).count(), 0);
    await link.click();
    await signIn(page);
    await page.locator("#running .card").getByRole("button", { name: "Cancel Virtual machines" }).waitFor();
    assert.deepEqual(page.errors, []);
  });

  scenario("somebody with a read-only token is signed in, cannot act, and can sign out", async (stack) => {
    const backend = stack.use(await ManualBackend.start());
    const file = path.join(stack.use(await folder()).path, "readers");
    await writeFile(file, "anna:the-token-of-a-reader\n", { mode: 0o600 });
    const bridge = await startBridge(stack, backend.url, { admin_read_token_file: file, admin_open_reads: "off" });
    const page = await openSignedOut(stack, `${bridge.admin}/session`);
    await page.getByLabel("Admin token").fill("the-token-of-a-reader");
    await page.keyboard.press("Enter");
    await shows(page, "Signed in as anna (read-only)");
    await shows(page, "No sync has ended yet.");
    assert.equal(await page.getByRole("button", { name: /Start|Cancel/ }).count(), 0);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Admin token").waitFor();
    const operator = await open(stack, bridge.admin);
    await shows(operator, "Signed in as operator");
    assert.deepEqual(operator.errors, []);
  });

  scenario("without a configured token, the page names the setting instead of a link to sign in", async (stack) => {
    const backend = stack.use(await ManualBackend.start());
    const bridge = stack.use(await serve(backend.url));
    const page = await openSignedOut(stack, bridge.admin);
    await shows(page, "Set admin_token_file to start and cancel syncs.");
    assert.equal(await page.locator("#sign-in").isVisible(), false);
    assert.equal(await page.getByRole("button", { name: /Start|Cancel/ }).count(), 0);
    assert.deepEqual(page.errors, []);
  });
}

// Runs in the page. Elements that can only come from a name, and links that leave the page and the API.
function injected() {
  const links = [...document.querySelectorAll("main a")].filter((link) => !/^(#\/|jobs\/)/.test(link.getAttribute("href")));
  return [...document.querySelectorAll("main img, main script, main b:empty"), ...links].map((one) => one.outerHTML);
}
