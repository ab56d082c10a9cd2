// Tests of what nobody may do by means of the page.

import assert from "node:assert/strict";

import { AS_OPERATOR, VMS, drawn, home, open, puppetAndBridge, scenario, seen, signIn, start, status, visit } from "./browser.mjs";
import { Puppet, folder, serve } from "./programs.mjs";

export function testTrust() {
  scenario("names are text and nothing else, wherever they are shown", async (stack) => {
    const place = stack.use(await folder());
    const { puppet, bridge } = await puppetAndBridge(stack, { data_dir: place.path, "jobs.recording": "on" });
    const image = "<img src=x onerror=window.hacked=1>";
    // The bridge takes markup out of what backends say. This is none to it, and would be an image with `>` behind.
    const open_image = "<img src=x onerror=window.hacked=2 alt=";
    // And this becomes an image when it does.
    const hidden_image = "<b></b>&lt;img src=x onerror=window.hacked=1&gt;";
    const link = "javascript:window.hacked=3//\u202e";
    const page = await open(stack, bridge.admin);
    const headers = { ...AS_OPERATOR, "x-proxbox-actor": image };
    const asked = await fetch(`${bridge.admin}/sync/${VMS}/?x=${image}`, { method: "POST", headers });
    const { url } = await asked.json();
    const stream = await puppet.stream();
    stream.discover([open_image, hidden_image, link]);
    stream.vm(open_image, "completed");
    await page.locator("#running .card").getByText(image).waitFor();
    await page.goto(`${bridge.admin}/#${url}`);
    await page.locator("#timeline").getByText(open_image).waitFor();
    await page.locator("#raw-events summary").click();
    await page.locator("#raw-events").getByText(open_image).first().waitFor();
    stream.vm(hidden_image, "failed", { error: hidden_image });
    stream.vm(link, "failed", { error: link });
    stream.say("<script>window.hacked=4</script>", { name: image });
    stream.complete(false, { message: hidden_image, errors: [{ detail: `${hidden_image} ${link}` }] });
    await status(page, "Failed");
    await page.locator("#failed-rows").getByText(image).first().waitFor();
    await page.locator("#failed-rows").getByText(link).first().waitFor();
    await page.locator("#job-failure").getByText(image).first().waitFor();
    await page.locator("#facts").getByText(image).first().waitFor();
    await page.locator("#raw-recording summary").click();
    await page.locator("#raw-recording").getByText("<script>window.hacked=4</script>").waitFor();
    assert.deepEqual(await page.evaluate(grown), []);
    await home(page);
    await page.locator("#history .why").getByText(image).waitFor();
    await page.locator("#history .about").getByText(image).waitFor();
    await page.goto(`${bridge.admin}/#/jobs/${encodeURIComponent(image)}`);
    await seen(page, "Invalid job id.");
    await page.goto(`${bridge.admin}/#/?kind=${encodeURIComponent(image)}`);
    await page.locator("#history-problem").getByText(encodeURIComponent(image)).waitFor();
    await drawn(page);
    assert.deepEqual(await page.evaluate(grown), []);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    // What the bridge has refused is told by the browser too.
    const refused = (said) => said.startsWith("Failed to load resource: the server responded with a status of 400");
    assert.deepEqual(page.complaints.filter((said) => !refused(said)), []);
  });

  scenario("what the policy forbids is forbidden, so that a mistake of the page would do no harm", async (stack) => {
    const { bridge } = await puppetAndBridge(stack);
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
    assert.ok(page.complaints.some((said) => said.includes("Content Security Policy")), `${page.complaints}`);
  });

  scenario("where a token is wanted, nothing is shown and nothing is started without it", async (stack) => {
    const { puppet, bridge } = await puppetAndBridge(stack, { admin_open_reads: "off" });
    const page = await visit(stack, bridge.admin);
    const token = page.getByLabel("Admin token");
    await token.fill("not the right one");
    await page.getByRole("button", { name: "Sign in" }).click();
    await seen(page, "That is not the admin token of this bridge.");
    await signIn(page);
    assert.equal(await page.evaluate(() => document.cookie), "");
    await start(page, VMS);
    (await puppet.stream()).complete();
    await status(page, "Completed");
    await page.getByRole("button", { name: "Sign out" }).click();
    await token.waitFor();
    const other = await visit(stack, bridge.admin);
    await other.getByLabel("Admin token").waitFor();
    assert.equal(await other.locator("#home").count(), 0);
  });

  scenario("who may only read is told how to do more", async (stack) => {
    const { puppet, bridge } = await puppetAndBridge(stack);
    const page = await visit(stack, bridge.admin);
    const link = page.getByRole("link", { name: "Sign in to start and cancel" });
    await link.waitFor();
    await fetch(`${bridge.admin}/sync/${VMS}/`, { method: "POST", headers: AS_OPERATOR });
    (await puppet.stream()).discover(["web01"]);
    await page.locator("#running .card").waitFor();
    assert.equal(await page.getByRole("button", { name: /Start|Cancel/ }).count(), 0);
    await link.click();
    await signIn(page);
    await page.locator("#running .card").getByRole("button", { name: "Cancel Virtual machines" }).waitFor();
    assert.deepEqual(page.complaints, []);
  });

  scenario("where there is no token, the page says so, and sends nobody to where they cannot sign in", async (stack) => {
    const puppet = stack.use(await Puppet.start());
    const bridge = stack.use(await serve(puppet.url));
    const page = await visit(stack, bridge.admin);
    await seen(page, "Starting and cancelling need admin_token_file.");
    assert.equal(await page.locator("#sign-in").isVisible(), false);
    assert.equal(await page.getByRole("button", { name: /Start|Cancel/ }).count(), 0);
    assert.deepEqual(page.complaints, []);
  });
}

// Elements that only a name can have brought, and links to where none should lead, in the page.
function grown() {
  const links = [...document.querySelectorAll("main a")].filter((link) => !/^(#\/|\/jobs\/)/.test(link.getAttribute("href")));
  return [...document.querySelectorAll("main img, main script, main b:empty"), ...links].map((one) => one.outerHTML);
}
