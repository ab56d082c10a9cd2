// Starts bridges, replayed backends and manual backends. They listen on free ports of the loopback address. The caller
// ends them.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BINARY = process.env.PROXBOX_BRIDGE_BINARY ?? path.join(ROOT, "target/debug/proxbox-bridge");
export const RECORDINGS = path.join(ROOT, "fixtures/recordings");

// The time limit of a step, in milliseconds. Generous, for busy machines.
export const TIMEOUT = 60_000;

// What a test has started. It is ended in reverse order.
export class Stack {
  #ends = [];

  use(thing) {
    this.#ends.push(() => thing.end());
    return thing;
  }

  async end() {
    for (const end of this.#ends.reverse()) await end();
  }
}

// A running bridge command and its addresses.
class Program {
  addresses = {};
  #lines = [];

  constructor(args, settings) {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("PROXBOX_BRIDGE_"));
    const own = Object.entries(settings).map(([key, value]) => [
      `PROXBOX_BRIDGE_${key.replaceAll(".", "_").toUpperCase()}`,
      value,
    ]);
    const env = Object.fromEntries([...inherited, ...own, ["PROXBOX_BRIDGE_LOG", "info"]]);
    this.process = spawn(BINARY, args, { env, stdio: ["ignore", "ignore", "pipe"] });
    this.exited = once(this.process, "exit");
    this.exited.catch(() => {});
  }

  // Waits until it listens on `wanted` addresses.
  async listens(wanted) {
    const lines = readline.createInterface({ input: this.process.stderr });
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => fail("timeout before it listened"), TIMEOUT);
      const fail = (why) => {
        clearTimeout(late);
        this.process.kill("SIGKILL");
        reject(new Error(`${why}\n${this.#lines.join("\n")}`));
      };
      this.process.on("error", (error) => fail(error));
      lines.on("close", () => fail("it exited"));
      lines.on("line", (line) => {
        this.#lines.push(line);
        const fields = line.startsWith("{") ? JSON.parse(line) : {};
        // The line is longer for addresses that are not loopback.
        if (fields.message?.startsWith("Listening")) this.addresses[fields.key ?? "listen"] = fields.address;
        if (Object.keys(this.addresses).length === wanted) {
          clearTimeout(late);
          resolve();
        }
      });
    });
    return this;
  }

  async end(signal = "SIGKILL") {
    this.process.kill(signal);
    await this.exited;
  }
}

// Starts `replay` with a recording.
export async function replay(version, ...more) {
  const args = ["replay", path.join(RECORDINGS, version), "--listen", "127.0.0.1:0", ...more];
  const program = await new Program(args, {}).listens(1);
  return Object.assign(program, { url: `http://${program.addresses.listen}` });
}

// Starts a bridge with `backend`. `settings` are by configuration key. There is no cool-down, because these backends end
// a job with its connection.
export async function serve(backend, settings = {}) {
  const own = { listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", admin_open_reads: "on", "limits.cooldown": "0s" };
  const listeners = "backend.netbox_listen" in settings ? 3 : 2;
  const program = await new Program(["serve"], { ...own, "backend.url": backend, ...settings }).listens(listeners);
  const admin = program.addresses.admin_listen.replace("0.0.0.0", "127.0.0.1");
  return Object.assign(program, { admin: `http://${admin}` });
}

// Starts a bridge with a configuration file.
export async function serveWithFile(text, folder) {
  const file = path.join(folder.path, "bridge.toml");
  await writeFile(file, text);
  const program = await new Program(["serve", "--config", file], {}).listens(2);
  return Object.assign(program, { admin: `http://${program.addresses.admin_listen}` });
}

// An address with a free port.
export async function freeAddress() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return `127.0.0.1:${port}`;
}

export async function folder() {
  const place = await mkdtemp(path.join(tmpdir(), "proxbox-bridge-page-"));
  return { path: place, end: () => rm(place, { recursive: true, force: true }) };
}

// A backend with event streams that the test writes. It requires no key.
export class ManualBackend {
  #server = http.createServer((request, response) => this.#answer(request, response));
  #streams = [];
  #waiting = [];

  static async start() {
    const backend = new ManualBackend();
    backend.#server.listen(0, "127.0.0.1");
    await once(backend.#server, "listening");
    return Object.assign(backend, { url: `http://127.0.0.1:${backend.#server.address().port}` });
  }

  #answer(request, response) {
    const { pathname } = new URL(request.url, "http://backend");
    if (request.method === "HEAD") return response.writeHead(405, { allow: "GET" }).end();
    if (!pathname.endsWith("/stream")) {
      response.writeHead(200, { "content-type": "application/json" });
      return response.end(JSON.stringify(pathname === "/version" ? { version: "0.0.11.post2" } : {}));
    }
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
    response.flushHeaders();
    const stream = new ManualStream(response, request);
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#streams.push(stream);
    else waiting(stream);
  }

  // The next stream that is requested.
  stream() {
    if (this.#streams.length > 0) return this.#streams.shift();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async end() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}

// A stream of a manual backend.
class ManualStream {
  #response;

  constructor(response, request) {
    this.#response = response;
    this.headers = request.headers;
    this.target = request.url;
    this.closed = once(response, "close");
  }

  send(name, data) {
    this.#response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  // Sends a discovery of virtual machines.
  discover(names) {
    const items = names.map((name) => ({ name, item_type: "qemu" }));
    this.send("discovery", {
      event: "discovery",
      phase: "virtual-machines",
      status: "discovered",
      message: `Discovered ${names.length} virtual machine(s) to synchronize`,
      count: names.length,
      items,
    });
  }

  vm(name, status, more = {}) {
    this.send("step", { step: "virtual_machine", status, message: `Virtual machine ${name} ${status}`, rowid: name, ...more });
  }

  // Sends the final event and ends the stream.
  complete(ok = true, more = {}) {
    this.send("complete", { ok, message: ok ? "Virtual machines sync completed." : "It failed.", ...more });
    this.#response.end();
  }

  // Breaks the connection.
  cut() {
    this.#response.destroy();
  }
}
