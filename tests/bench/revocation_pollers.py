"""A process of many pollers of the revocation feed; prints when each of them heard of an ending.

`python -m tests.bench.revocation_pollers PORT CA CREDENTIAL COUNT`. Each line is a JSON list: the
time on the system's monotonic clock, and the handles that one poller heard.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import uvloop

from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from chassis.tls.contexts import KeyPair, client_context

_AGAIN_SECONDS = 1.0
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


async def follow(client: Client) -> None:
    """Poll for ever; the first answer is not printed."""
    cursor: str | None = None
    while True:
        form = urlencode({} if cursor is None else {"cursor": cursor}).encode()
        response = await client.request("POST", "/internal/revocations", _HEADERS.items(), form)
        heard_at, answer = time.monotonic(), json.loads(response.body)
        if response.status != 200:  # such as 503: as a sidecar, it asks again
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        if cursor is None:
            print(json.dumps("ready"), flush=True)
        elif answer["ended"]:
            handles = [one["handle"] for one in answer["ended"]]
            print(json.dumps([heard_at, handles]), flush=True)
        cursor = answer["cursor"]


async def main(port: int, ca: Path, credential: Path, count: int) -> None:
    tls = client_context(KeyPair.in_directory(credential), ca)
    limits = Limits(body_bytes=1024 * 1024, connections=1)
    clients = [
        Client(Host("localhost", port), tls, limits=limits, connect_seconds=20.0)
        for _ in range(count)
    ]
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(follow(client))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
