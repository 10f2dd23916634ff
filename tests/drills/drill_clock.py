"""The clock of a pod is ten minutes or 25 hours ahead, and then right again.

Real processes under libfaketime (Debian's package `faketime`): their wall clock is moved while they
run, their monotonic clock is not, as when somebody sets a node's clock. Not part of `make test`;
`make drills` runs it. docs/reference/cluster-tests.md says what was seen.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from demo.layout import CLIENT_ID, Layout, plan
from demo.material import write_material
from demo.processes import Processes
from demo.stack import sidecar_environment
from demo.upstream import FakeUpstream
from tests.support.browser_logins import jwt_of

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not _LIBRARIES, reason="needs libfaketime, of Debian's package faketime"),
]

AUTHSERVER, SIDECAR = "authserver", "sidecar-notes"
NOW, TEN_MINUTES, A_DAY = "+0", "+10m", "+25h"
_UPSTREAM_SECONDS: Final = 3600
# A sidecar may serve what it holds for a minute.
_SETTLED_SECONDS: Final = 90.0


@dataclass(frozen=True)
class Site:
    """One authserver, one sidecar, each with a clock of its own."""

    layout: Layout
    http: aiohttp.ClientSession

    def set_clock(self, process: str, offset: str) -> None:
        """Move the clock of a running process; `offset` in libfaketime's words."""
        new = self.layout.folder / f"{process}.new"
        new.write_text(f"{offset}\n")
        new.replace(_clock_of(self.layout, process))

    async def jwt(self) -> str:
        return await jwt_of(self.layout.issuer, self.layout.servers[0].resource, "alice")

    async def ask(self, jwt: str) -> tuple[int, str]:
        """Status and error of a call for the user's token; the error is empty for a token."""
        headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
        url = f"{self.layout.servers[0].sidecar}/v1/token"
        async with self.http.post(url, json={}, headers=headers) as answer:
            return answer.status, (await answer.json()).get("error", "")

    async def until(self, jwt: str, expected: tuple[int, str]) -> None:
        """Ask until this is the answer."""
        seen = None
        try:
            async with asyncio.timeout(_SETTLED_SECONDS):
                while (seen := await self.ask(jwt)) != expected:
                    await asyncio.sleep(0.5)
        except TimeoutError:
            pytest.fail(f"{seen} instead of {expected}")

    async def is_ready(self) -> bool:
        async with self.http.get(f"{self.layout.servers[0].ops}/readyz") as answer:
            return answer.status == 200

    async def until_ready(self, *, expected: bool) -> None:
        async with asyncio.timeout(_SETTLED_SECONDS):
            while await self.is_ready() != expected:
                await asyncio.sleep(0.5)

    def warned(self, process: str, event: str) -> bool:
        """Whether a process has logged this event, at whatever time by its clock."""
        lines = (self.layout.folder / f"{process}.log").read_text().splitlines()
        return any(json.loads(one)["event"] == event for one in lines if one.startswith("{"))


def _clock_of(layout: Layout, process: str) -> Path:
    return layout.folder / f"{process}.clock"


def _moved(layout: Layout, process: str) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(_LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(_clock_of(layout, process)),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@asynccontextmanager
async def site(tmp_path: Path, *, sidecar_begins: str = NOW) -> AsyncIterator[Site]:
    """Everything on loopback; only the sidecar's clock may be wrong from the start."""
    layout = plan(tmp_path, ("notes",))
    write_material(layout)
    upstream = FakeUpstream(
        client_id=CLIENT_ID,
        client_secret=layout.client_secret.read_text().removesuffix("\n"),
        redirect_uri=layout.callback,
        access_token_lifetime=_UPSTREAM_SECONDS,
    )
    async with (
        upstream.serve(port=layout.upstream_port),
        Processes(tmp_path) as processes,
        aiohttp.ClientSession() as http,
    ):
        here = Site(layout, http)
        here.set_clock(AUTHSERVER, NOW)
        here.set_clock(SIDECAR, sidecar_begins)
        await processes.start(
            AUTHSERVER, "authserver", "--config", str(layout.config),
            environment=_moved(layout, AUTHSERVER),
        )  # fmt: skip
        sidecar = sidecar_environment(layout, layout.servers[0]) | _moved(layout, SIDECAR)
        await processes.start(SIDECAR, "sidecar", environment=sidecar)
        await processes.ready(AUTHSERVER, f"{layout.ops}/readyz")
        await processes.ready(SIDECAR, f"{layout.servers[0].ops}/healthz")
        yield here


TOKEN, OUTAGE = (200, ""), (503, "temporarily_unavailable")


@pytest.mark.parametrize("process", [SIDECAR, AUTHSERVER])
async def test_ten_minutes_ahead_cost_nobody_a_call(tmp_path: Path, process: str) -> None:
    async with site(tmp_path) as here:
        jwt, unused = await here.jwt(), await here.jwt()
        assert await here.ask(jwt) == TOKEN
        here.set_clock(process, TEN_MINUTES)
        for one in (jwt, unused):
            assert await here.ask(one) == TOKEN
        assert await here.is_ready()
        here.set_clock(process, NOW)
        assert await here.ask(await here.jwt()) == TOKEN
        assert not here.warned(SIDECAR, "credential_unusable")


async def test_a_running_sidecar_a_day_ahead_serves_on_its_open_connections_and_says_so(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        jwt, unused = await here.jwt(), await here.jwt()
        assert await here.ask(jwt) == TOKEN
        here.set_clock(SIDECAR, A_DAY)
        await here.until_ready(expected=False)
        assert here.warned(SIDECAR, "credential_unusable")
        for one in (jwt, unused):
            assert await here.ask(one) == TOKEN
        here.set_clock(SIDECAR, NOW)
        await here.until_ready(expected=True)
        assert await here.ask(jwt) == TOKEN


async def test_a_sidecar_that_starts_a_day_ahead_is_an_outage_until_its_clock_is_right(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, sidecar_begins=A_DAY) as here:
        jwt = await here.jwt()
        assert await here.ask(jwt) == OUTAGE
        assert here.warned(SIDECAR, "exchange_failed")
        assert not await here.is_ready()
        here.set_clock(SIDECAR, NOW)
        await here.until(jwt, TOKEN)
        await here.until_ready(expected=True)


async def test_an_authserver_a_day_ahead_is_an_outage_and_ends_no_session(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        jwt = await here.jwt()
        assert await here.ask(jwt) == TOKEN
        here.set_clock(AUTHSERVER, A_DAY)
        await here.until(jwt, OUTAGE)
        assert here.warned(AUTHSERVER, "handshake_refused")
        here.set_clock(AUTHSERVER, NOW)
        await here.until(jwt, TOKEN)
