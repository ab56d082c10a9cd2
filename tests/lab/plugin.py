"""Uses the plugin as people do: sets it up by its REST API, and presses its buttons on its pages."""

import re
import time

import httpx

import proxmox
import services

# The buttons, and their paths under /plugins/proxbox/.
BUTTONS = {
    "devices": "sync/devices/",
    "storage": "sync/storage/",
    "virtual-machines": "sync/virtual-machines/",
    "virtual-disks": "sync/virtual-machines/virtual-disks/",
    "backups": "sync/virtual-machines/backups/",
    "snapshots": "sync/virtual-machines/snapshots/",
    "network-interfaces": "sync/network-interfaces/",
    "ip-addresses": "sync/ip-addresses/",
    "replications": "sync/replications/",
    "backup-routines": "sync/backup-routines/",
    "full-update": "sync/full-update/",
    # "Sync now" on the pages of the two endpoints of Proxmox: a full update of one of them.
    "endpoint-1": "endpoints/proxmox/1/sync-now/",
    "endpoint-2": "endpoints/proxmox/2/sync-now/",
}
# What the endpoint of NetBox is called in the plugin.
NETBOX_NAME = "netbox-lab"
OVER = ("completed", "errored", "failed")
# What a job may take, in seconds: the plugin tries again what fails, and waits in between.
JOB_LIMIT = 1200


class Plugin:
    """A person who is logged in to NetBox, and a program with a token."""

    def __init__(self, url):
        self.url = url
        authorization = {"Authorization": f"Token {services.NETBOX_TOKEN}"}
        # NetBox closes idle connections after two seconds, maybe just when one is to be used again.
        once = httpx.Limits(max_keepalive_connections=0)
        self.api = httpx.Client(base_url=f"{url}/api/", headers=authorization, timeout=120, limits=once)
        self.pages = httpx.Client(base_url=url, timeout=300, limits=once)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.pages.get("/login/").text)[1]
        form = {"csrfmiddlewaretoken": token, "username": services.USER, "password": services.USER_PASSWORD}
        self.pages.post("/login/", data=form, headers={"Referer": f"{url}/login/"})
        if "sessionid" not in self.pages.cookies:
            raise services.Failed("cannot log in to NetBox")

    def rest(self, method, path, **body):
        """One request to the REST API; what it answers."""
        answer = self.api.request(method, path, json=body or None)
        if answer.is_error:
            raise services.Failed(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def add(self, kind, **row):
        """Adds an endpoint to the plugin, and approves that the plugin gives credentials to its address."""
        endpoints = f"plugins/proxbox/endpoints/{kind}"
        number = self.rest("POST", f"{endpoints}/", **row, verify_ssl=False, enabled=True)["id"]
        if kind != "fastapi":
            authority = f"{endpoints}/{number}/connection-authority/"
            fingerprint = self.rest("GET", authority)["target_fingerprint"]
            self.rest("PUT", authority, target_fingerprint=fingerprint)

    def add_netbox(self, port, *, v2_token):
        """Tells the plugin where NetBox is for the backend, and the token for it."""
        known = self.rest("GET", "users/tokens/")["results"][0]
        token = {"token_version": "v1", "token": {"id": known["id"]}}
        if v2_token:
            made = self.rest("POST", "users/tokens/", user=known["user"]["id"], version=2)
            token = {"token_version": "v2", "token_key": made["key"], "token_secret": made["token"]}
        self.add("netbox", name=NETBOX_NAME, domain="localhost", port=port, **token)

    def add_proxmox(self, cluster):
        """Tells the plugin of a cluster, which gets an address: backends refuse one that has only a name."""
        address = self.rest("POST", "ipam/ip-addresses/", address=f"{cluster.host}/32")["id"]
        where = {"ip_address": address, "domain": cluster.domain, "port": cluster.port}
        token = {"token_name": proxmox.TOKEN_NAME, "token_value": proxmox.TOKEN_VALUE}
        self.add(
            "proxmox", name=cluster.cluster, **where, mode="cluster", username=proxmox.USER_NAME, **token
        )

    def add_backend(self, port):
        """Tells the plugin of the backend, whose key it adopts."""
        where = {"domain": "localhost", "port": port, "use_https": False}
        self.add("fastapi", name="backend", **where, token=services.API_KEY)

    def push(self, clusters):
        """Opens the pages of the endpoints, on which the plugin pushes them; what their cards say."""
        cards = [
            ("fastapi", 1),
            ("netbox", 1),
            *(("proxmox", number) for number, _ in enumerate(clusters, 1)),
        ]
        said = {}
        for kind, number in cards:
            answer = self.pages.get(f"/plugins/proxbox/keepalive-status/{kind}/{number}/")
            said[f"{kind} {number}"] = answer.json() if answer.is_success else answer.text[:300]
        return said

    def press(self, button):
        """Presses a button, and waits for the job that it starts; the job as NetBox's REST API has it."""
        token = self.pages.cookies["csrftoken"]
        headers = {"Referer": f"{self.url}/", "X-CSRFToken": token}
        path = f"/plugins/proxbox/{BUTTONS[button]}"
        last = self.last_job()
        answer = self.pages.post(path, data={"csrfmiddlewaretoken": token}, headers=headers)
        number = self.last_job()
        if number == last:
            raise services.Failed(f"{path} started no job: {answer.status_code} {answer.text[:300]}")
        deadline = time.monotonic() + JOB_LIMIT
        while time.monotonic() < deadline:
            job = self.rest("GET", f"core/jobs/{number}/")
            if job["status"]["value"] in OVER:
                return job
            time.sleep(1)
        raise services.Failed(f"job {number} of {button} is not over after {JOB_LIMIT} seconds")

    def last_job(self):
        """The number of the newest job of the plugin."""
        jobs = self.rest("GET", "core/jobs/?ordering=-id&limit=1&name__isw=Proxbox Sync")["results"]
        return jobs[0]["id"] if jobs else 0
