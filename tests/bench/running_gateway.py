"""A sidecar with a gateway, to be measured."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from demo.pki import write_credential
from tests.bench.wrk import until_open
from tests.sidecar.gateway.harness import by_user
from tests.sidecar.harness import SPIFFE_ID, Authorities, environment, fake_authserver


@contextlib.asynccontextmanager
async def running_gateway(folder: Path, port: int, app: int) -> AsyncIterator[int]:
    """The process id of a sidecar with a gateway, whose authserver accepts everybody."""
    authorities = Authorities.create()
    write_credential(folder / "credential", authorities.workloads.issue_svid(SPIFFE_ID))
    async with fake_authserver(folder, authorities) as authserver:
        authserver.always(by_user)
        variables = environment(folder, authserver.url) | {
            "TOKENWARD_GATEWAY": f"{port}:{app}",
            "TOKENWARD_GATEWAY_HOST": "127.0.0.1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", env=variables, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await until_open(port)
            yield process.pid
        finally:
            process.terminate()
            await process.wait()
