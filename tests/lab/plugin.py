"""Uses the plugin as operators do: configures it over its REST API, and presses the buttons on its pages."""

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
    # "Sync now" on the pages of the two Proxmox endpoints: a full update of one of them.
    "endpoint-1": "endpoints/proxmox/1/sync-now/",
    "endpoint-2": "endpoints/proxmox/2/sync-now/",
}
# The name of the NetBox endpoint in the plugin.
NETBOX_NAME = "netbox-lab"
FINAL_STATUSES = ("completed", "errored", "failed")
# Time for a job, in seconds, including retries of the plugin.
JOB_TIMEOUT = 1200


class Plugin:
    """A client of NetBox: one session is logged in to its pages, another uses a token for the REST API."""

    def __init__(self, url):
        self.url = url
        authorization = {"Authorization": f"Token {services.NETBOX_TOKEN}"}
        # NetBox closes idle connections after two seconds, which could fail a request on a reused one.
        once = httpx.Limits(max_keepalive_connections=0)
        self.api = httpx.Client(base_url=f"{url}/api/", headers=authorization, timeout=120, limits=once)
        self.pages = httpx.Client(base_url=url, timeout=300, limits=once)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.pages.get("/login/").text)[1]
        form = {"csrfmiddlewaretoken": token, "username": services.USER, "password": services.USER_PASSWORD}
        self.pages.post("/login/", data=form, headers={"Referer": f"{url}/login/"})
        if "sessionid" not in self.pages.cookies:
            raise services.Failed("cannot log in to NetBox")

    def rest(self, method, path, **body):
        """The response to one request to the REST API."""
        answer = self.api.request(method, path, json=body or None)
        if answer.is_error:
            raise services.Failed(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def add(self, kind, **row):
        """Adds an endpoint to the plugin, and approves that the plugin sends credentials to its address."""
        endpoints = f"plugins/proxbox/endpoints/{kind}"
        number = self.rest("POST", f"{endpoints}/", **row, verify_ssl=False, enabled=True)["id"]
        if kind != "fastapi":
            authority = f"{endpoints}/{number}/connection-authority/"
            fingerprint = self.rest("GET", authority)["target_fingerprint"]
            self.rest("PUT", authority, target_fingerprint=fingerprint)

    def add_netbox(self, port, *, v2_token):
        """Adds the NetBox endpoint: the address and the token that the backend uses."""
        known = self.rest("GET", "users/tokens/")["results"][0]
        token = {"token_version": "v1", "token": {"id": known["id"]}}
        if v2_token:
            made = self.rest("POST", "users/tokens/", user=known["user"]["id"], version=2)
            token = {"token_version": "v2", "token_key": made["key"], "token_secret": made["token"]}
        self.add("netbox", name=NETBOX_NAME, domain="localhost", port=port, **token)

    def add_proxmox(self, cluster):
        """Adds a Proxmox endpoint with an IP address: backends refuse one that has only a name."""
        address = self.rest("POST", "ipam/ip-addresses/", address=f"{cluster.host}/32")["id"]
        address = {"ip_address": address, "domain": cluster.domain, "port": cluster.port}
        token = {"token_name": proxmox.TOKEN_NAME, "token_value": proxmox.TOKEN_VALUE}
        self.add(
            "proxmox", name=cluster.cluster, **address, mode="cluster", username=proxmox.USER_NAME, **token
        )

    def add_backend(self, port):
        """Adds the backend, with its key."""
        address = {"domain": "localhost", "port": port, "use_https": False}
        self.add("fastapi", name="backend", **address, token=services.API_KEY)

    def push(self, clusters):
        """Opens the pages of the endpoints, which pushes them to the backend; returns the status on their cards."""
        cards = [
            ("fastapi", 1),
            ("netbox", 1),
            *(("proxmox", number) for number, _ in enumerate(clusters, 1)),
        ]
        status = {}
        for kind, number in cards:
            answer = self.pages.get(f"/plugins/proxbox/keepalive-status/{kind}/{number}/")
            status[f"{kind} {number}"] = answer.json() if answer.is_success else answer.text[:300]
        return status

    def press(self, button):
        """Presses a button and waits for its job; returns the job from NetBox's REST API."""
        token = self.pages.cookies["csrftoken"]
        headers = {"Referer": f"{self.url}/", "X-CSRFToken": token}
        path = f"/plugins/proxbox/{BUTTONS[button]}"
        last = self.last_job()
        answer = self.pages.post(path, data={"csrfmiddlewaretoken": token}, headers=headers)
        number = self.last_job()
        if number == last:
            raise services.Failed(f"{path} started no job: {answer.status_code} {answer.text[:300]}")
        deadline = time.monotonic() + JOB_TIMEOUT
        while time.monotonic() < deadline:
            job = self.rest("GET", f"core/jobs/{number}/")
            if job["status"]["value"] in FINAL_STATUSES:
                return job
            time.sleep(1)
        raise services.Failed(f"job {number} of {button} has not ended after {JOB_TIMEOUT} seconds")

    def last_job(self):
        """The number of the newest job of the plugin."""
        jobs = self.rest("GET", "core/jobs/?ordering=-id&limit=1&name__isw=Proxbox Sync")["results"]
        return jobs[0]["id"] if jobs else 0
