// Tests of the page under a path of a proxy.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";

import { TOKEN, VMS, home, openSignedOut, scenario, start, startBackendAndBridge, status } from "./browser.mjs";

// A proxy that serves the admin listener at `target` under `prefix`, and nothing else. `removes` the prefix or not. It
// passes on the host without its port, as nginx does with `Host $host`.
async function proxy(target, prefix, removes) {
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(prefix)) return response.writeHead(404).end();
    const path = removes ? request.url.slice(prefix.length - 1) : request.url;
    const headers = { ...request.headers, host: "127.0.0.1" };
    const forwarded = http.request(`${target}${path}`, { method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    response.on("close", () => forwarded.destroy());
    forwarded.on("error", () => response.destroy());
    request.pipe(forwarded);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const end = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}${prefix}`, end };
}

export function testPrefix() {
  for (const removes of [true, false]) {
    scenario(`the page works under a path of a proxy that ${removes ? "removes" : "keeps"} it`, async (stack) => {
      const { backend, bridge } = await startBackendAndBridge(stack, { admin_base_path: "/tools/bridge", admin_open_reads: "off" });
      const { url } = stack.use(await proxy(bridge.admin, "/tools/bridge/", removes));
      const page = await openSignedOut(stack, `${url}session`);
      await page.getByLabel("Admin token").fill(TOKEN);
      await page.keyboard.press("Enter");
      await page.waitForURL(url);
      await start(page, VMS);
      const stream = await backend.stream();
      stream.discover(["web01", "web02"]);
      stream.vm("web02", "completed");
      stream.vm("web01", "failed", { error: "It has no name." });
      await page.locator("#failed-rows tr").waitFor();
      await page.locator("#timeline").getByText("It has no name.").waitFor();
      await page.locator("#raw-events summary").click();
      await page.locator("#raw-events li").first().waitFor();
      stream.complete();
      await status(page, "Completed with failures");
      const [cookie] = await page.context().cookies();
      assert.equal(cookie.path, "/tools/bridge/");
      const targets = await page.locator("a[href]:visible").evaluateAll((links) => links.map((link) => link.href));
      assert.ok(targets.length >= 5 && targets.every((target) => target.startsWith(url)), `${targets}`);
      for (const name of ["metrics", "openapi.json"]) assert.ok(targets.includes(`${url}${name}`), name);
      for (const target of targets) assert.equal((await page.request.get(target)).status(), 200, target);
      await page.reload();
      await status(page, "Completed with failures");
      await home(page);
      await page.locator("#history tr").waitFor();
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByLabel("Admin token").waitFor();
      // Signing in and out gives a 401 to the page itself.
      assert.deepEqual(page.errors.filter((error) => !error.includes("status of 401")), []);
    });
  }
}
