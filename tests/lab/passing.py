"""Passes HTTP requests on to another address on loopback, unchanged."""

import aiohttp
import yarl
from aiohttp import web

# These are about one connection, not about what is passed on.
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
# What a request may take: a sync of a large inventory is one answer.
NO_LIMIT = aiohttp.ClientTimeout(total=None)


def end_to_end(headers, *, without=()):
    """The headers that go on, in their order, without those named."""
    gone = HOP_BY_HOP.union(without)
    return [(name, value) for name, value in headers.items() if name.lower() not in gone]


def ask(session, upstream, request, body):
    """The request, sent to `upstream` with `body`; a context manager that gives the answer."""
    headers = end_to_end(request.headers, without=("content-length",))
    url = yarl.URL(upstream + request.raw_path, encoded=True)
    return session.request(request.method, url, headers=headers, data=body or None, allow_redirects=False)


async def serve(handler, port):
    """Serves on `port`. `handler` gets every request, and a session to ask with."""
    # Bodies go through as they are, and every request has a connection of its own.
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
    # A client that leaves is to be noticed upstream: a backend stops its sync then.
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
