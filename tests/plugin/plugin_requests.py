"""The requests of a job of the plugin, in a form in which two jobs can be compared.

    python3 tests/plugin/conversation.py RECORDED.ndjson > fixtures/plugin/VERSION/JOB.ndjson

makes a fixture of what `tests/lab/run --record` wrote down of a job in a real NetBox: the requests alone,
without secrets.
"""

import json
import re
import sys

HEADERS = ("accept", "content-type", "x-proxbox-api-key")
SECRETS = ("password", "token", "token_value")
RUN_ID = re.compile(r"(?<=run_id=)[0-9a-f-]{36}")


def request(method, target, headers, body):
    """One request without what is different each time: secrets, ports and the id of the run."""
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
    """The requests in a file of what was recorded, or in a fixture."""
    with open(path, encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    fields = ("method", "target", "request", "request_body")
    return [request(*(line[field] for field in fields)) for line in read]


if __name__ == "__main__":
    for asked in recorded(sys.argv[1]):
        print(json.dumps(asked))
