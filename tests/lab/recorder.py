"""Forwards requests and records every exchange: one JSON object per line, in the order of the requests.

recorder.py --port PORT --upstream URL --secrets FILE --output FILE

Fields: `method`, `target`, `request` (selected headers) and `request_body`; `status`, `reason`, `response` (selected
headers) and `body`. A response that was not forwarded completely has `cut`. A WebSocket has `frames` instead of `body`,
each with its sender. FILE is a JSON object that maps secrets to the text that replaces them.
"""

import argparse
import asyncio
import json
import pathlib

import aiohttp
from aiohttp import web

import forwarding

REQUEST_HEADERS = ("accept", "authorization", "content-type", "last-event-id", "x-proxbox-api-key")
RESPONSE_HEADERS = ("allow", "content-type", "retry-after", "www-authenticate")
RESPONSE_PREFIX = "x-proxbox-bridge-"


class Log:
    """The output. An exchange is written when it and all earlier ones have ended."""

    def __init__(self, path, secrets):
        self.file = path.open("w")
        self.secrets = secrets
        self.open = []

    def begin(self, request, body):
        """Begins the exchange of this request."""
        line = {
            "method": request.method,
            "target": request.raw_path,
            "request": select(request.headers, REQUEST_HEADERS),
            "request_body": body.decode() or None,
        }
        self.open.append([line, False])
        return line

    def end(self, line):
        """Ends the exchange, and writes those that are due."""
        next(entry for entry in self.open if entry[0] is line)[1] = True
        while self.open and self.open[0][1]:
            text = json.dumps(self.open.pop(0)[0], ensure_ascii=False)
            for secret, name in self.secrets.items():
                text = text.replace(secret, name)
            self.file.write(text + "\n")
        self.file.flush()


def select(headers, names):
    """The headers to record, with lower-case names."""
    lower = ((name.lower(), value) for name, value in headers.items())
    return {name: value for name, value in lower if name in names or name.startswith(RESPONSE_PREFIX)}


async def websocket(request, session, upstream, line):
    """Forwards WebSocket messages in both directions until one side closes."""
    headers = {
        k: v for k, v in request.headers.items() if k.lower() in ("x-proxbox-api-key", "authorization")
    }
    frames = line["frames"] = []
    there = await session.ws_connect(upstream + request.raw_path, headers=headers, max_msg_size=0)
    here = web.WebSocketResponse(max_msg_size=0)
    await here.prepare(request)
    line["status"] = 101

    async def pump(source, sink, name):
        async for message in source:
            frames.append(
                [name, message.data if message.type is aiohttp.WSMsgType.TEXT else repr(message.data)]
            )
            if message.type is aiohttp.WSMsgType.TEXT:
                await sink.send_str(message.data)
            else:
                await sink.send_bytes(message.data)
        frames.append([name, {"close": source.close_code}])
        await sink.close(code=source.close_code if source.close_code not in (None, 1005, 1006) else 1000)

    await asyncio.gather(pump(here, there, "client"), pump(there, here, "backend"))
    return here


async def stream(request, session, upstream, body, line):
    """Forwards a response in chunks."""
    pieces = []
    try:
        async with forwarding.send(session, upstream, request, body) as answer:
            line["status"], line["reason"] = answer.status, answer.reason
            line["response"] = select(answer.headers, RESPONSE_HEADERS)
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            response.headers.extend(forwarding.end_to_end(answer.headers))
            await response.prepare(request)
            line["cut"] = True
            async for piece in answer.content.iter_any():
                pieces.append(piece)
                await response.write(piece)
            await response.write_eof()
            del line["cut"]
            return response
    finally:
        line["body"] = b"".join(pieces).decode(errors="replace")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--secrets", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()
    log = Log(options.output, json.loads(options.secrets.read_text()))

    async def handle(request, session):
        body = await request.read()
        line = log.begin(request, body)
        try:
            if request.headers.get("upgrade", "").lower() == "websocket":
                return await websocket(request, session, options.upstream, line)
            return await stream(request, session, options.upstream, body, line)
        except aiohttp.ClientError as error:
            # Upstream failed without a response: drop the client's connection too.
            line["cut"] = str(error)
            request.transport.abort()
            raise
        finally:
            log.end(line)

    await forwarding.serve(handle, options.port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
