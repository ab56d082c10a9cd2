"""Forwards HTTP requests unchanged to another loopback address."""

import aiohttp
import yarl
from aiohttp import web

# They concern one connection and are not forwarded.
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
# A sync of a large inventory is one response.
NO_LIMIT = aiohttp.ClientTimeout(total=None)


def end_to_end(headers, *, without=()):
    """The headers to forward, in order, except those in `without`."""
    removed = HOP_BY_HOP.union(without)
    return [(name, value) for name, value in headers.items() if name.lower() not in removed]


def send(session, upstream, request, body):
    """Sends `request` to `upstream` with `body`. Returns a context manager for the response."""
    headers = end_to_end(request.headers, without=("content-length",))
    url = yarl.URL(upstream + request.raw_path, encoded=True)
    return session.request(request.method, url, headers=headers, data=body or None, allow_redirects=False)


async def serve(handler, port):
    """Serves on `port`. `handler` gets every request and a client session."""
    # Bodies are not decoded, and every request uses its own connection.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=NO_LIMIT,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept"),
    )

    async def handle(request):
        return await handler(request, session)

    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", handle)
    # Forwards disconnects of clients, on which a backend stops its sync.
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
