"""A bridge as it would be written with aiohttp: it copies native streams, converts those of `/ws`, and forwards the rest."""

import json
import sys

from aiohttp import ClientSession, ClientTimeout, TCPConnector, WSMsgType, web

port, backend = int(sys.argv[1]), sys.argv[2]


async def stream(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    async with request.app["session"].get(backend + request.path_qs) as upstream:
        if upstream.status == 200:
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            return response
    await response.prepare(request)
    async with request.app["session"].ws_connect(backend + "/ws") as socket:
        await socket.send_str("Sync Virtual Machines")
        async for message in socket:
            if message.type != WSMsgType.TEXT or not message.data.startswith("{"):
                continue
            frame = json.loads(message.data)
            if frame.get("end"):
                break
            row = frame["data"]
            status = "completed" if row["completed"] else "progress"
            text = f"Processing {frame['object']} {row['rowid']}"
            step = {"step": frame["object"], "status": status, "message": text, "rowid": row["rowid"]}
            await response.write(f"event: step\ndata: {json.dumps(step)}\n\n".encode())
    await response.write(b'event: complete\ndata: {"ok": true, "message": "Done."}\n\n')
    return response


async def forward(request):
    data = await request.read()
    async with request.app["session"].request(request.method, backend + request.path_qs, data=data) as upstream:
        return web.Response(status=upstream.status, body=await upstream.read(), content_type=upstream.content_type)


async def session(app):
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None)) as app["session"]:
        yield


app = web.Application()
app.cleanup_ctx.append(session)
app.add_routes([web.get("/{path:.*}/stream", stream), web.get("/events", stream), web.route("*", "/{path:.*}", forward)])
web.run_app(app, host="127.0.0.1", port=port, access_log=None, backlog=1024, print=None)
