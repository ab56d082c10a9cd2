// A WebSocket peer for the tests, made with Node's ws. peer.py says what it does, and does the same.
//
//   PEERS=target/peers node peer.mjs serve
//   PEERS=target/peers node peer.mjs ask URL

import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

const { WebSocket, WebSocketServer } = createRequire(`${process.env.PEERS}/`)("ws");

const TEXT = "zażółć gęślą jaźń, 日本, 🦀";
const CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4001, 4999];
const DEFLATING = ["python", "node"];
// So many exchanges may fail before the others are not tried any more.
const ENOUGH = 3;

// --- the backend ----------------------------------------------------------------------------------

const ends = new Map();

// How the connection called `name` ended, once it has.
function endOf(name) {
  if (!ends.has(name)) {
    const end = {};
    end.known = new Promise((resolve) => (end.is = resolve));
    ends.set(name, end);
  }
  return ends.get(name);
}

const BEHAVIOURS = {
  told(heard, query, request) {
    const { origin, "sec-websocket-protocol": offered } = request.headers;
    heard.socket.send(JSON.stringify({ language: "node", target: request.url, origin, offered }));
  },
  echo({ socket }) {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  },
  async fragments(heard) {
    await heard.next();
    await inPieces(heard.socket, bytewise(), false);
    heard.socket.send("the pong was seen");
  },
  hear() {},
  async close(heard, query) {
    await heard.next();
    if (query.has("code")) heard.socket.close(Number(query.get("code")), query.get("reason"));
    else heard.socket.close();
  },
  async drop(heard) {
    await heard.next();
    heard.socket.terminate();
  },
  async seen(heard, query) {
    heard.socket.send(JSON.stringify(await endOf(query.get("id")).known));
  },
};

function beABackend() {
  const server = new WebSocketServer({
    host: "127.0.0.1",
    port: 0,
    perMessageDeflate: true,
    handleProtocols: (offered) => offered.has("binary") && "binary",
  });
  server.on("listening", () => console.log(server.address().port));
  server.on("connection", (socket, request) => {
    const query = new URL(request.url, "http://backend").searchParams;
    const heard = new Heard(socket);
    if (query.get("do") !== "seen" && query.has("id")) heard.end.then(endOf(query.get("id")).is);
    BEHAVIOURS[query.get("do")](heard, query, request);
  });
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0));
}

// --- both -----------------------------------------------------------------------------------------

// What comes on a socket. `end` is its code and reason, once it has ended.
class Heard {
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
    // The code of the end tells the same.
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
async function inPieces(socket, pieces, binary) {
  const pong = new Promise((resolve) => socket.once("pong", resolve));
  pieces.forEach((piece, at) => {
    if (at === Math.floor(pieces.length / 2)) socket.ping("inside");
    socket.send(piece, { binary, fin: at + 1 === pieces.length });
  });
  same("pong", (await pong).toString(), "inside");
}

// --- the client -----------------------------------------------------------------------------------

class Client {
  #ids = 0;

  constructor(url) {
    this.url = url;
  }

  async open(query, protocols = [], options = {}) {
    const socket = new WebSocket(`${this.url}/ssh/sessions/1/ws?${query}`, protocols, options);
    const heard = new Heard(socket);
    await new Promise((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", reject);
    });
    return heard;
  }

  newId() {
    this.#ids += 1;
    return `node-${this.#ids}`;
  }

  async seen(id) {
    const heard = await this.open(`do=seen&id=${id}`);
    const end = JSON.parse(await heard.next());
    await closed(heard);
    return end;
  }

  async isAskedAsItAsks() {
    const query = "do=told&a=%2F%3a;b&&c=+%20%F0%9F%A6%80&d";
    const origin = "https://netbox.example:8443";
    const heard = await this.open(query, ["plain", "binary"], { origin });
    const told = JSON.parse(await heard.next());
    same("target", told.target, `/ssh/sessions/1/ws?${query}`);
    same("origin", told.origin, origin);
    same("offered", told.offered.replaceAll(" ", ""), "plain,binary");
    same("subprotocol", heard.socket.protocol, "binary");
    same("deflate", heard.socket.extensions.includes("permessage-deflate"), DEFLATING.includes(told.language));
    await closed(heard);
  }

  async echoes(message) {
    const heard = await this.open("do=echo");
    heard.socket.send(message);
    same("echo", await heard.next(), message);
    await closed(heard);
  }

  async echoesFragments(message, pieces) {
    const heard = await this.open("do=echo");
    await inPieces(heard.socket, pieces, typeof message !== "string");
    same("echo", await heard.next(), message);
    await closed(heard);
  }

  async hearsFragments() {
    const heard = await this.open("do=fragments");
    heard.socket.send("now");
    same("message", await heard.next(), TEXT);
    same("then", await heard.next(), "the pong was seen");
    await closed(heard);
  }

  async closes(code, reason) {
    const id = this.newId();
    const heard = await this.open(`do=hear&id=${id}`);
    heard.socket.close(code, reason);
    same("answer", await heard.end, [code ?? 1005, reason]);
    same("seen", await this.seen(id), [code ?? 1005, reason]);
  }

  async isClosed(code, reason) {
    const id = this.newId();
    const said = code ? `&code=${code}&reason=${encodeURIComponent(reason)}` : "";
    const heard = await this.open(`do=close&id=${id}${said}`);
    heard.socket.send("now");
    same("close", await heard.end, [code ?? 1005, reason]);
    same("seen", await this.seen(id), [code ?? 1005, reason]);
  }

  async drops() {
    const id = this.newId();
    const heard = await this.open(`do=hear&id=${id}`);
    heard.socket.terminate();
    same("seen", (await this.seen(id))[0], 1006);
  }

  async isDropped() {
    const heard = await this.open("do=drop");
    heard.socket.send("now");
    same("close", (await heard.end)[0], 1006);
  }

  *exchanges() {
    yield ["told", () => this.isAskedAsItAsks()];
    yield ["text", () => this.echoes(TEXT)];
    yield ["binary", () => this.echoes(Buffer.from([...Array(256).keys()]))];
    yield ["empty text", () => this.echoes("")];
    yield ["empty binary", () => this.echoes(Buffer.alloc(0))];
    yield ["1 MiB of text", () => this.echoes("0123456789abcdef".repeat(2 ** 16))];
    yield ["1 MiB of bytes", () => this.echoes(randomBytes(2 ** 20))];
    yield ["text, byte by byte", () => this.echoesFragments(TEXT, bytewise())];
    const many = Array.from({ length: 300 }, () => randomBytes(100));
    yield ["300 fragments", () => this.echoesFragments(Buffer.concat(many), many)];
    yield ["fragments of the backend", () => this.hearsFragments()];
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

async function closed(heard) {
  heard.socket.close();
  await heard.end;
}

function same(what, found, wanted) {
  const [one, other] = [found, wanted].map((value) =>
    Buffer.isBuffer(value) ? `bytes ${value.toString("hex")}` : JSON.stringify(value),
  );
  if (one !== other) throw new Error(`${what}: ${one.slice(0, 200)} is not ${other.slice(0, 200)}`);
}

async function beAClient(url) {
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
    if (failed === ENOUGH) break;
  }
  process.exit(failed > 0 ? 1 : 0);
}

if (process.argv[2] === "serve") beABackend();
else await beAClient(process.argv[3]);
