"""Upstream, authserver and sidecar of the tree this runs in, until standard input ends.

Where everything is goes to standard output, as a line of JSON; `--storage` is the configuration's
section as JSON. It runs in older trees too, so it uses only what every build has.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.bench.world import running


async def main(storage: dict[str, object] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), storage) as world:
            layout, server = world.layout, world.server
            _, authserver, sidecar = world.processes.pids
            facts = {
                "issuer": layout.issuer,
                "resource": server.resource,
                "internal_port": layout.internal_port,
                "sidecar_port": server.sidecar_port,
                "server_ca": str(layout.server_ca),
                "credential": str(server.credential),
                "signing_key": str(layout.signing_key),
                "jwt": world.jwt,
                "authserver": authserver,
                "sidecar": sidecar,
            }
            print(json.dumps(facts), flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--storage", type=json.loads)
    uvloop.run(main(parser.parse_args().storage))
