"""A WebSocket peer for the tests, made with Python's websockets. peer.mjs does the same with Node's ws.

peer.py serve      is a backend: prints its port, and serves until its standard input ends
peer.py ask URL    is a client: makes all exchanges with the backend behind URL, says which failed, and how

What a backend does on a connection is what `do` in its query says:

told        tells how it was asked: target, origin, subprotocol
echo        sends every message back
fragments   after a first message: sends TEXT, every byte in a fragment of its own, with a ping in its middle;
            says so when the pong has come
hear        waits for the end
close       after a first message: closes, with `code` and `reason` if they are given
drop        after a first message: ends without a word
seen        says with which code and reason the connection ended that had the same `id`
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
# So many exchanges may fail before the others are not tried any more.
ENOUGH = 3


# --- the backend -----------------------------------------------------------------------------------

ends = {}


def end_of(name):
    return ends.setdefault(name, asyncio.get_running_loop().create_future())


async def told(socket, query):
    headers = socket.request.headers
    said = {"language": "python", "target": socket.request.path, "origin": headers.get("Origin")}
    await socket.send(json.dumps({**said, "offered": headers.get("Sec-WebSocket-Protocol")}))


async def echo(socket, query):
    async for message in socket:
        await socket.send(message)


async def fragments(socket, query):
    await socket.recv()
    await in_pieces(socket, [bytes([byte]) for byte in TEXT.encode()], True)
    await socket.send("the pong was seen")


async def hear(socket, query):
    async for _ in socket:
        pass


async def close(socket, query):
    await socket.recv()
    await socket.close(int(query["code"]) if "code" in query else None, query.get("reason", ""))


async def drop(socket, query):
    await socket.recv()
    socket.transport.abort()


async def seen(socket, query):
    await socket.send(json.dumps(await end_of(query["id"])))


BEHAVIOURS = [told, echo, fragments, hear, close, drop, seen]


async def behave(socket):
    query = dict(parse_qsl(urlsplit(socket.request.path).query))
    with contextlib.suppress(ConnectionClosed):
        await next(what for what in BEHAVIOURS if what.__name__ == query["do"])(socket, query)
        await hear(socket, query)
    await socket.wait_closed()
    if query["do"] != "seen" and "id" in query:
        end_of(query["id"]).set_result([socket.close_code, socket.close_reason])


def choose(socket, offered):
    return "binary" if "binary" in offered else None


async def be_a_backend():
    async with serve(behave, "127.0.0.1", 0, select_subprotocol=choose, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        # Not through the end of the block, which waits for clients.
        os._exit(0)


# --- both ------------------------------------------------------------------------------------------


async def in_pieces(socket, pieces, is_text):
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

    async def seen(self, name):
        async with self.open(f"do=seen&id={name}") as socket:
            return json.loads(await socket.recv())

    async def is_asked_as_it_asks(self):
        query = "do=told&a=%2F%3a;b&&c=+%20%F0%9F%A6%80&d"
        options = {"origin": "https://netbox.example:8443", "subprotocols": ["plain", "binary"]}
        async with self.open(query, **options) as socket:
            heard = json.loads(await socket.recv())
            same("target", heard["target"], f"/ssh/sessions/1/ws?{query}")
            same("origin", heard["origin"], options["origin"])
            same("offered", heard["offered"].replace(" ", ""), "plain,binary")
            same("subprotocol", socket.subprotocol, "binary")
            deflates = any(extension.name == "permessage-deflate" for extension in socket.protocol.extensions)
            same("deflate", deflates, heard["language"] in DEFLATING)

    async def echoes(self, message):
        async with self.open("do=echo") as socket:
            await socket.send(message)
            same("echo", await socket.recv(), message)

    async def echoes_fragments(self, message, pieces):
        async with self.open("do=echo") as socket:
            await in_pieces(socket, pieces, isinstance(message, str))
            same("echo", await socket.recv(), message)

    async def hears_fragments(self):
        async with self.open("do=fragments") as socket:
            await socket.send("now")
            same("message", await socket.recv(), TEXT)
            same("then", await socket.recv(), "the pong was seen")

    async def closes(self, code, reason):
        name = self.new_id()
        async with self.open(f"do=hear&id={name}") as socket:
            await socket.close(code, reason)
            same("answer", [socket.close_code, socket.close_reason], [code or 1005, reason])
        same("seen", await self.seen(name), [code or 1005, reason])

    async def is_closed(self, code, reason):
        name = self.new_id()
        said = f"&code={code}&reason={quote(reason)}" if code else ""
        async with self.open(f"do=close&id={name}{said}") as socket:
            await socket.send("now")
            await socket.wait_closed()
            same("close", [socket.close_code, socket.close_reason], [code or 1005, reason])
        same("seen", await self.seen(name), [code or 1005, reason])

    async def drops(self):
        name = self.new_id()
        async with self.open(f"do=hear&id={name}") as socket:
            socket.transport.abort()
        same("seen", (await self.seen(name))[0], 1006)

    async def is_dropped(self):
        async with self.open("do=drop") as socket:
            await socket.send("now")
            await socket.wait_closed()
            same("close", socket.close_code, 1006)

    def exchanges(self):
        yield "told", self.is_asked_as_it_asks()
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
        yield "fragments of the backend", self.hears_fragments()
        for code in CODES:
            yield f"closes with {code}", self.closes(code, f"za {code} 🦀")
            yield f"is closed with {code}", self.is_closed(code, f"za {code} 🦀")
        yield "closes without a code", self.closes(None, "")
        yield "is closed without a code", self.is_closed(None, "")
        yield "drops", self.drops()
        yield "is dropped", self.is_dropped()


def same(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r:.200} is not {wanted!r:.200}")


async def be_a_client(url):
    failed = 0
    for name, exchange in Client(url).exchanges():
        try:
            await asyncio.wait_for(exchange, 10)
        except Exception as error:
            failed += 1
            print(f"{name}: {error!r}", flush=True)
            if failed == ENOUGH:
                break
    sys.exit(failed > 0)


if sys.argv[1] == "serve":
    asyncio.run(be_a_backend())
else:
    asyncio.run(be_a_client(sys.argv[2]))
