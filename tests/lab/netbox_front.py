"""A front of NetBox for the backends that do not get along with the NetBox or the plugin of today.

netbox_front.py --port PORT --netbox URL --secrets FILE

Everything passes but two things:

- 0.0.2 asks the plugin for the endpoints of Proxmox, and needs their secrets, too. The plugin of its day gave
  them out, that of today does not: they are added from FILE, a JSON object of secrets by the endpoint's name.
- 0.0.5 to 0.0.7 make the custom field proxmox_last_updated for some of the types of objects on which they
  write it, and NetBox refuses the others: the field is made for all of them.
"""

import argparse
import asyncio
import json
import pathlib

from aiohttp import web

import passing

PROXMOX_ENDPOINTS = "/api/plugins/proxbox/endpoints/proxmox/"
CUSTOM_FIELDS = "/api/extras/custom-fields/"
# What proxmox_last_updated is written on, beside what the backends make it for.
WRITTEN = {
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


def widened(body):
    """The body of a request about custom fields, with proxmox_last_updated for all that it is written on."""
    fields = json.loads(body)
    for field in fields if isinstance(fields, list) else [fields]:
        types = field.get("object_types") or []
        if "virtualization.virtualdisk" in types and "dcim.site" in types:
            field["object_types"] = sorted(WRITTEN.union(types))
    return json.dumps(fields).encode()


def with_secrets(body, secrets):
    """The plugin's answer about endpoints of Proxmox, with the secrets of those that are known."""
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
            body = widened(body)
        async with passing.ask(session, options.netbox, request, body) as answer:
            said = await answer.read()
            if request.method == "GET" and request.path == PROXMOX_ENDPOINTS and answer.status == 200:
                said = with_secrets(said, secrets)
            headers = passing.end_to_end(answer.headers, without=("content-length",))
            return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=said)

    await passing.serve(handle, options.port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
