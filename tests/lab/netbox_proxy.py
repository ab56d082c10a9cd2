"""A proxy in front of NetBox for backends that are incompatible with today's NetBox or plugin.

netbox_proxy.py --port PORT --netbox URL --secrets FILE

It forwards everything and changes two things:

- 0.0.2 reads its Proxmox endpoints from the plugin, with their secrets. Today's plugin does not return secrets, so
  the proxy adds them from FILE, a JSON object with the secrets of each endpoint name.
- 0.0.5 to 0.0.7 create the custom field proxmox_last_updated for fewer object types than they write it on, and NetBox
  refuses those writes: the proxy adds the missing types.
"""

import argparse
import asyncio
import json
import pathlib

from aiohttp import web

import forwarding

PROXMOX_ENDPOINTS = "/api/plugins/proxbox/endpoints/proxmox/"
CUSTOM_FIELDS = "/api/extras/custom-fields/"
# The object types on which the backends write proxmox_last_updated.
OBJECT_TYPES = {
    "dcim.device",
    "dcim.devicerole",
    "dcim.devicetype",
    "dcim.interface",
    "dcim.macaddress",
    "dcim.manufacturer",
    "dcim.site",
    "ipam.ipaddress",
    "ipam.vlan",
    "virtualization.cluster",
    "virtualization.clustertype",
    "virtualization.virtualdisk",
    "virtualization.virtualmachine",
    "virtualization.vminterface",
}


def widen(body):
    """Adds OBJECT_TYPES to proxmox_last_updated in the body of a request for custom fields."""
    fields = json.loads(body)
    for field in fields if isinstance(fields, list) else [fields]:
        types = field.get("object_types") or []
        if "virtualization.virtualdisk" in types and "dcim.site" in types:
            field["object_types"] = sorted(OBJECT_TYPES.union(types))
    return json.dumps(fields).encode()


def add_secrets(body, secrets):
    """Adds secrets to the Proxmox endpoints in a response of the plugin."""
    answer = json.loads(body)
    for row in answer.get("results", []):
        row.update(secrets.get(row["name"], {}))
    return json.dumps(answer).encode()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--netbox", required=True)
    parser.add_argument("--secrets", type=pathlib.Path, required=True)
    options = parser.parse_args()
    secrets = json.loads(options.secrets.read_text())

    async def handle(request, session):
        body = await request.read()
        if body and request.path.startswith(CUSTOM_FIELDS):
            body = widen(body)
        async with forwarding.send(session, options.netbox, request, body) as answer:
            response_body = await answer.read()
            if request.method == "GET" and request.path == PROXMOX_ENDPOINTS and answer.status == 200:
                response_body = add_secrets(response_body, secrets)
            headers = forwarding.end_to_end(answer.headers, without=("content-length",))
            return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=response_body)

    await forwarding.serve(handle, options.port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
