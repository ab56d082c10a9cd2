"""The requests of a job of the plugin, normalised so that two jobs can be compared.

    python3 tests/plugin/plugin_requests.py RECORDED.ndjson > fixtures/plugin/VERSION/JOB.ndjson

converts a recording of `tests/lab/run --record` to a fixture: the requests alone, without secrets.
"""

import json
import re
import sys

HEADERS = ("accept", "content-type", "x-proxbox-api-key")
SECRETS = ("password", "token", "token_value")
RUN_ID = re.compile(r"(?<=run_id=)[0-9a-f-]{36}")


def request(method, target, headers, body):
    """One request without values that differ between runs: secrets, ports and run ids."""
    headers = {name.lower(): value for name, value in headers.items() if name.lower() in HEADERS}
    if "x-proxbox-api-key" in headers:
        headers["x-proxbox-api-key"] = "REDACTED"
    if body:
        body = json.loads(body)
        body |= {name: "REDACTED" for name in SECRETS if body.get(name)}
        body |= {"port": 443} if "port" in body else {}
        body = json.dumps(body)
    target = RUN_ID.sub("00000000-0000-0000-0000-000000000000", target)
    headers = dict(sorted(headers.items()))
    return {"method": method, "target": target, "request": headers, "request_body": body or None}


def recorded(path):
    """The requests in a recording or a fixture."""
    with open(path, encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    fields = ("method", "target", "request", "request_body")
    return [request(*(line[field] for field in fields)) for line in read]


if __name__ == "__main__":
    for entry in recorded(sys.argv[1]):
        print(json.dumps(entry))
