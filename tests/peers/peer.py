"""A WebSocket peer for the tests, made with Python's websockets. peer.mjs does the same with Node's ws.

peer.py serve         runs a backend: prints its port, and serves until its standard input ends
peer.py client URL    runs a client: makes all exchanges with the backend behind URL, and prints those that failed

The parameter `do` in the query selects what the backend does on a connection:

request        sends target, origin and subprotocols of the request
echo           sends every message back
fragments      after a first message: sends TEXT, every byte in its own fragment, with a ping in the middle; sends
               another message after the pong
wait           waits for the end of the connection
close          after a first message: closes, with `code` and `reason` if they are given
drop           after a first message: ends without a close frame
close_status   sends the code and the reason with which the connection with the same `id` ended
"""

import asyncio
import contextlib
import json
import os
import sys
from urllib.parse import parse_qsl, quote, urlsplit

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

TEXT = "zażółć gęślą jaźń, 日本, 🦀"
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4001, 4999]
DEFLATING = ["python", "node"]
# Stops after so many failed exchanges.
MAX_FAILURES = 3


# --- the backend -----------------------------------------------------------------------------------

ends = {}


def end_of(name):
    return ends.setdefault(name, asyncio.get_running_loop().create_future())


async def request(socket, query):
    headers = socket.request.headers
    fields = {"language": "python", "target": socket.request.path, "origin": headers.get("Origin")}
    await socket.send(json.dumps({**fields, "offered": headers.get("Sec-WebSocket-Protocol")}))


async def echo(socket, query):
    async for message in socket:
        await socket.send(message)


async def fragments(socket, query):
    await socket.recv()
    await send_fragments(socket, [bytes([byte]) for byte in TEXT.encode()], True)
    await socket.send("the pong was received")


async def wait(socket, query):
    async for _ in socket:
        pass


async def close(socket, query):
    await socket.recv()
    await socket.close(int(query["code"]) if "code" in query else None, query.get("reason", ""))


async def drop(socket, query):
    await socket.recv()
    socket.transport.abort()


async def close_status(socket, query):
    await socket.send(json.dumps(await end_of(query["id"])))


BEHAVIOURS = [request, echo, fragments, wait, close, drop, close_status]


async def handle(socket):
    query = dict(parse_qsl(urlsplit(socket.request.path).query))
    with contextlib.suppress(ConnectionClosed):
        await next(what for what in BEHAVIOURS if what.__name__ == query["do"])(socket, query)
        await wait(socket, query)
    await socket.wait_closed()
    if query["do"] != "close_status" and "id" in query:
        end_of(query["id"]).set_result([socket.close_code, socket.close_reason])


def choose(socket, offered):
    return "binary" if "binary" in offered else None


async def run_backend():
    async with serve(handle, "127.0.0.1", 0, select_subprotocol=choose, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        # Leaving the block would wait for clients.
        os._exit(0)


# --- both ------------------------------------------------------------------------------------------


async def send_fragments(socket, pieces, is_text):
    """Sends a message in fragments with a ping in its middle, and waits for the pong."""
    pongs = []

    async def each():
        for at, piece in enumerate(pieces):
            if at == len(pieces) // 2:
                pongs.append(await socket.ping(b"inside"))
            yield piece

    await socket.send(each(), text=is_text)
    await pongs[0]


# --- the client ------------------------------------------------------------------------------------


class Client:
    def __init__(self, url):
        self.url = url
        self.ids = 0

    def open(self, query, **options):
        url = f"{self.url}/ssh/sessions/1/ws?{query}"
        return connect(url, proxy=None, max_size=None, **options)

    def new_id(self):
        self.ids += 1
        return f"python-{self.ids}"

    async def close_status(self, name):
        async with self.open(f"do=close_status&id={name}") as socket:
            return json.loads(await socket.recv())

    async def forwards_the_request(self):
        query = "do=request&a=%2F%3a;b&&c=+%20%F0%9F%A6%80&d"
        options = {"origin": "https://netbox.example:8443", "subprotocols": ["plain", "binary"]}
        async with self.open(query, **options) as socket:
            received = json.loads(await socket.recv())
            assert_equal("target", received["target"], f"/ssh/sessions/1/ws?{query}")
            assert_equal("origin", received["origin"], options["origin"])
            assert_equal("offered", received["offered"].replace(" ", ""), "plain,binary")
            assert_equal("subprotocol", socket.subprotocol, "binary")
            deflates = any(extension.name == "permessage-deflate" for extension in socket.protocol.extensions)
            assert_equal("deflate", deflates, received["language"] in DEFLATING)

    async def echoes(self, message):
        async with self.open("do=echo") as socket:
            await socket.send(message)
            assert_equal("echo", await socket.recv(), message)

    async def echoes_fragments(self, message, pieces):
        async with self.open("do=echo") as socket:
            await send_fragments(socket, pieces, isinstance(message, str))
            assert_equal("echo", await socket.recv(), message)

    async def receives_fragments(self):
        async with self.open("do=fragments") as socket:
            await socket.send("now")
            assert_equal("message", await socket.recv(), TEXT)
            assert_equal("then", await socket.recv(), "the pong was received")

    async def closes(self, code, reason):
        name = self.new_id()
        async with self.open(f"do=wait&id={name}") as socket:
            await socket.close(code, reason)
            assert_equal("answer", [socket.close_code, socket.close_reason], [code or 1005, reason])
        assert_equal("close status", await self.close_status(name), [code or 1005, reason])

    async def is_closed(self, code, reason):
        name = self.new_id()
        status = f"&code={code}&reason={quote(reason)}" if code else ""
        async with self.open(f"do=close&id={name}{status}") as socket:
            await socket.send("now")
            await socket.wait_closed()
            assert_equal("close", [socket.close_code, socket.close_reason], [code or 1005, reason])
        assert_equal("close status", await self.close_status(name), [code or 1005, reason])

    async def drops(self):
        name = self.new_id()
        async with self.open(f"do=wait&id={name}") as socket:
            socket.transport.abort()
        assert_equal("close status", (await self.close_status(name))[0], 1006)

    async def is_dropped(self):
        async with self.open("do=drop") as socket:
            await socket.send("now")
            await socket.wait_closed()
            assert_equal("close", socket.close_code, 1006)

    def exchanges(self):
        yield "request", self.forwards_the_request()
        yield "text", self.echoes(TEXT)
        yield "binary", self.echoes(bytes(range(256)))
        yield "empty text", self.echoes("")
        yield "empty binary", self.echoes(b"")
        yield "1 MiB of text", self.echoes("0123456789abcdef" * 2**16)
        yield "1 MiB of bytes", self.echoes(os.urandom(2**20))
        bytewise = [bytes([byte]) for byte in TEXT.encode()]
        yield "text, byte by byte", self.echoes_fragments(TEXT, bytewise)
        many = [os.urandom(100) for _ in range(300)]
        yield "300 fragments", self.echoes_fragments(b"".join(many), many)
        yield "fragments of the backend", self.receives_fragments()
        for code in CODES:
            yield f"closes with {code}", self.closes(code, f"za {code} 🦀")
            yield f"is closed with {code}", self.is_closed(code, f"za {code} 🦀")
        yield "closes without a code", self.closes(None, "")
        yield "is closed without a code", self.is_closed(None, "")
        yield "drops", self.drops()
        yield "is dropped", self.is_dropped()


def assert_equal(what, actual, expected):
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r:.200} is not {expected!r:.200}")


async def run_client(url):
    failed = 0
    for name, exchange in Client(url).exchanges():
        try:
            await asyncio.wait_for(exchange, 10)
        except Exception as error:
            failed += 1
            print(f"{name}: {error!r}", flush=True)
            if failed == MAX_FAILURES:
                break
    sys.exit(failed > 0)


if sys.argv[1] == "serve":
    asyncio.run(run_backend())
else:
    asyncio.run(run_client(sys.argv[2]))
