// A WebSocket peer for the tests, made with Node's ws. It does the same as peer.py, which has the description.
//
//   PEERS=target/peers node peer.mjs serve
//   PEERS=target/peers node peer.mjs client URL

import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";

const { WebSocket, WebSocketServer } = createRequire(path.resolve(process.env.PEERS, "package.json"))("ws");

const TEXT = "zażółć gęślą jaźń, 日本, 🦀";
const CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4001, 4999];
const DEFLATING = ["python", "node"];
// Stops after so many failed exchanges.
const MAX_FAILURES = 3;

// --- the backend ----------------------------------------------------------------------------------

const ends = new Map();

// The end of the connection with the id `name`, as a promise.
function endOf(name) {
  if (!ends.has(name)) {
    const end = {};
    end.known = new Promise((resolve) => (end.is = resolve));
    ends.set(name, end);
  }
  return ends.get(name);
}

const BEHAVIOURS = {
  request(connection, query, request) {
    const { origin, "sec-websocket-protocol": offered } = request.headers;
    connection.socket.send(JSON.stringify({ language: "node", target: request.url, origin, offered }));
  },
  echo({ socket }) {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  },
  async fragments(connection) {
    await connection.next();
    await sendFragments(connection.socket, bytewise(), false);
    connection.socket.send("the pong was received");
  },
  wait() {},
  async close(connection, query) {
    await connection.next();
    if (query.has("code")) connection.socket.close(Number(query.get("code")), query.get("reason"));
    else connection.socket.close();
  },
  async drop(connection) {
    await connection.next();
    connection.socket.terminate();
  },
  async close_status(connection, query) {
    connection.socket.send(JSON.stringify(await endOf(query.get("id")).known));
  },
};

function runBackend() {
  const server = new WebSocketServer({
    host: "127.0.0.1",
    port: 0,
    perMessageDeflate: true,
    handleProtocols: (offered) => offered.has("binary") && "binary",
  });
  server.on("listening", () => console.log(server.address().port));
  server.on("connection", (socket, request) => {
    const query = new URL(request.url, "http://backend").searchParams;
    const connection = new Connection(socket);
    if (query.get("do") !== "close_status" && query.has("id")) connection.end.then(endOf(query.get("id")).is);
    BEHAVIOURS[query.get("do")](connection, query, request);
  });
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0));
}

// --- both -----------------------------------------------------------------------------------------

// A socket with its received messages. `end` is a promise of its close code and reason.
class Connection {
  #messages = [];
  #wake = () => {};

  constructor(socket) {
    this.socket = socket;
    this.end = new Promise((resolve) => {
      socket.on("close", (code, reason) => {
        this.#wake();
        resolve([code, reason.toString()]);
      });
    });
    socket.on("message", (data, binary) => {
      this.#messages.push(binary ? data : data.toString());
      this.#wake();
    });
    // The close code reports it too.
    socket.on("error", () => {});
  }

  async next() {
    while (this.#messages.length === 0) {
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error("the connection has ended");
      await new Promise((resolve) => (this.#wake = resolve));
    }
    return this.#messages.shift();
  }
}

function bytewise() {
  return Array.from(Buffer.from(TEXT), (byte) => Buffer.from([byte]));
}

// Sends a message in fragments with a ping in its middle, and waits for the pong.
async function sendFragments(socket, pieces, binary) {
  const pong = new Promise((resolve) => socket.once("pong", resolve));
  pieces.forEach((piece, at) => {
    if (at === Math.floor(pieces.length / 2)) socket.ping("inside");
    socket.send(piece, { binary, fin: at + 1 === pieces.length });
  });
  assertEqual("pong", (await pong).toString(), "inside");
}

// --- the client -----------------------------------------------------------------------------------

class Client {
  #ids = 0;

  constructor(url) {
    this.url = url;
  }

  async open(query, protocols = [], options = {}) {
    const socket = new WebSocket(`${this.url}/ssh/sessions/1/ws?${query}`, protocols, options);
    const connection = new Connection(socket);
    await new Promise((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", reject);
    });
    return connection;
  }

  newId() {
    this.#ids += 1;
    return `node-${this.#ids}`;
  }

  async closeStatus(id) {
    const connection = await this.open(`do=close_status&id=${id}`);
    const end = JSON.parse(await connection.next());
    await closed(connection);
    return end;
  }

  async forwardsTheRequest() {
    const query = "do=request&a=%2F%3a;b&&c=+%20%F0%9F%A6%80&d";
    const origin = "https://netbox.example:8443";
    const connection = await this.open(query, ["plain", "binary"], { origin });
    const request = JSON.parse(await connection.next());
    assertEqual("target", request.target, `/ssh/sessions/1/ws?${query}`);
    assertEqual("origin", request.origin, origin);
    assertEqual("offered", request.offered.replaceAll(" ", ""), "plain,binary");
    assertEqual("subprotocol", connection.socket.protocol, "binary");
    const deflates = connection.socket.extensions.includes("permessage-deflate");
    assertEqual("deflate", deflates, DEFLATING.includes(request.language));
    await closed(connection);
  }

  async echoes(message) {
    const connection = await this.open("do=echo");
    connection.socket.send(message);
    assertEqual("echo", await connection.next(), message);
    await closed(connection);
  }

  async echoesFragments(message, pieces) {
    const connection = await this.open("do=echo");
    await sendFragments(connection.socket, pieces, typeof message !== "string");
    assertEqual("echo", await connection.next(), message);
    await closed(connection);
  }

  async receivesFragments() {
    const connection = await this.open("do=fragments");
    connection.socket.send("now");
    assertEqual("message", await connection.next(), TEXT);
    assertEqual("then", await connection.next(), "the pong was received");
    await closed(connection);
  }

  async closes(code, reason) {
    const id = this.newId();
    const connection = await this.open(`do=wait&id=${id}`);
    connection.socket.close(code, reason);
    assertEqual("answer", await connection.end, [code ?? 1005, reason]);
    assertEqual("close status", await this.closeStatus(id), [code ?? 1005, reason]);
  }

  async isClosed(code, reason) {
    const id = this.newId();
    const status = code ? `&code=${code}&reason=${encodeURIComponent(reason)}` : "";
    const connection = await this.open(`do=close&id=${id}${status}`);
    connection.socket.send("now");
    assertEqual("close", await connection.end, [code ?? 1005, reason]);
    assertEqual("close status", await this.closeStatus(id), [code ?? 1005, reason]);
  }

  async drops() {
    const id = this.newId();
    const connection = await this.open(`do=wait&id=${id}`);
    connection.socket.terminate();
    assertEqual("close status", (await this.closeStatus(id))[0], 1006);
  }

  async isDropped() {
    const connection = await this.open("do=drop");
    connection.socket.send("now");
    assertEqual("close", (await connection.end)[0], 1006);
  }

  *exchanges() {
    yield ["request", () => this.forwardsTheRequest()];
    yield ["text", () => this.echoes(TEXT)];
    yield ["binary", () => this.echoes(Buffer.from([...Array(256).keys()]))];
    yield ["empty text", () => this.echoes("")];
    yield ["empty binary", () => this.echoes(Buffer.alloc(0))];
    yield ["1 MiB of text", () => this.echoes("0123456789abcdef".repeat(2 ** 16))];
    yield ["1 MiB of bytes", () => this.echoes(randomBytes(2 ** 20))];
    yield ["text, byte by byte", () => this.echoesFragments(TEXT, bytewise())];
    const many = Array.from({ length: 300 }, () => randomBytes(100));
    yield ["300 fragments", () => this.echoesFragments(Buffer.concat(many), many)];
    yield ["fragments of the backend", () => this.receivesFragments()];
    for (const code of CODES) {
      yield [`closes with ${code}`, () => this.closes(code, `za ${code} 🦀`)];
      yield [`is closed with ${code}`, () => this.isClosed(code, `za ${code} 🦀`)];
    }
    yield ["closes without a code", () => this.closes(undefined, "")];
    yield ["is closed without a code", () => this.isClosed(undefined, "")];
    yield ["drops", () => this.drops()];
    yield ["is dropped", () => this.isDropped()];
  }
}

async function closed(connection) {
  connection.socket.close();
  await connection.end;
}

function assertEqual(what, actual, expected) {
  const [left, right] = [actual, expected].map((value) =>
    Buffer.isBuffer(value) ? `bytes ${value.toString("hex")}` : JSON.stringify(value),
  );
  if (left !== right) throw new Error(`${what}: ${left.slice(0, 200)} is not ${right.slice(0, 200)}`);
}

async function runClient(url) {
  let failed = 0;
  for (const [name, exchange] of new Client(url).exchanges()) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("not within 10 s")), 10_000);
    });
    try {
      await Promise.race([exchange(), late]);
    } catch (error) {
      failed += 1;
      console.log(`${name}: ${error}`);
    }
    clearTimeout(timer);
    if (failed === MAX_FAILURES) break;
  }
  process.exit(failed > 0 ? 1 : 0);
}

if (process.argv[2] === "serve") runBackend();
else await runClient(process.argv[3]);
