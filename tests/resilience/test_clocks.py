"""Somebody sets a clock: wall clocks jump, monotonic ones do not, and everyone recovers."""

from pathlib import Path

import pytest

from authserver.connections.backoff import Backoff
from tests.resilience.answers import is_an_outage
from tests.resilience.pair import pair
from tests.support.deployment import deployed
from tests.support.workloads import line

HOUR, DAY = 3600.0, 86_400.0


@pytest.mark.parametrize("jump", [HOUR, DAY, -HOUR, -DAY])
async def test_a_sidecar_whose_wall_clock_jumps_serves_on_and_no_longer(
    tmp_path: Path, jump: float
) -> None:
    async with pair(tmp_path) as p:
        jwt = (await p.world.signed_in()).access_token
        first = await p.ask(jwt)
        p.wall.advance(jump)
        await p.sidecar.tick()
        p.clock.advance(59)
        again = await p.ask(jwt)
        assert again.json["access_token"] == first.json["access_token"]
        assert first.json["expires_in"] - again.json["expires_in"] == 59
        assert p.exchanges() == 1
        p.clock.advance(1)
        assert p.user_of(await p.ask(jwt)) == "alice"
        assert p.exchanges() == 2


async def test_a_sidecar_whose_clock_says_its_certificate_is_over_goes_on_and_says_so(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as p:
        jwt = (await p.world.signed_in()).access_token
        for jump, ready in ((DAY, False), (-DAY, True)):
            p.wall.advance(jump)
            await p.sidecar.tick()
            assert ("credential" not in p.sidecar.readiness.missing) is ready
            assert p.user_of(await p.ask(p.like(jwt, 2)[ready])) == "alice"


async def test_an_authserver_whose_clock_jumps_refuses_what_it_cannot_judge_and_recovers(
    tmp_path: Path,
) -> None:
    """Ahead, JWTs are over; behind, certificates are not valid yet: no verdict on a JWT."""
    async with pair(tmp_path) as p:
        jwt = (await p.world.signed_in()).access_token
        ahead, behind, afterwards = p.like(jwt, 3)
        p.world.clock.advance(HOUR)
        assert (await p.ask(ahead)).json["error"] == "invalid_token"
        p.world.clock.advance(-2 * HOUR)
        assert is_an_outage(await p.ask(behind))
        p.world.clock.advance(HOUR)
        assert p.user_of(await p.ask(afterwards)) == "alice"
        p.clock.advance(5)  # that long a denial is remembered
        assert p.user_of(await p.ask(ahead)) == "alice"


# A clock set back by four seconds, which no certificate and no JWT notices.


async def test_a_workload_that_was_slowed_down_waits_no_longer_when_the_clock_goes_back(
    tmp_path: Path,
) -> None:
    async with (
        deployed(tmp_path, limits={"releasesPerWorkloadPerSecond": 2}) as world,
        line(world) as sidecar,
    ):
        jwt = (await world.signed_in()).access_token
        statuses = [(await sidecar.exchange(jwt)).status for _ in range(5)]
        assert statuses == [200] * 4 + [429]
        for seconds, status in ((-4, 429), (1, 200)):
            world.clock.advance(seconds)
            assert (await sidecar.exchange(jwt)).status == status


async def test_whoever_tried_bad_tokens_waits_no_longer_when_the_clock_goes_back(
    tmp_path: Path,
) -> None:
    async with (
        deployed(tmp_path, limits={"failedTokensPerWorkloadPerMinute": 2}) as world,
        line(world) as sidecar,
    ):
        statuses = [(await sidecar.exchange("bad")).status for _ in range(3)]
        assert statuses == [400, 400, 429]
        for seconds, status in ((-4, 429), (31, 400)):
            world.clock.advance(seconds)
            assert (await sidecar.exchange("bad")).status == status


def test_an_upstream_that_failed_is_left_alone_no_longer_when_the_clock_goes_back() -> None:
    backoff = Backoff(threshold=1, first=30, longest=30, uniform=lambda _, most: most)
    backoff.failed("acme", HOUR)
    assert not backoff.allow("acme", HOUR + 29)
    assert backoff.allow("acme", 0)
    assert not backoff.allow("acme", 29)
    assert backoff.allow("acme", 30)
