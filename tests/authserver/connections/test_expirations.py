"""When an upstream ends a grant by itself: read from its answers, and shown where people look."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import changing
from tests.support.connecting import Scene, connected, person, scene
from tests.support.database_file import sql
from tests.support.refreshes import EXPIRED, Rig, rig
from tests.tokenward.running import on

DAY = 86400
ABSOLUTE = 90 * DAY


async def ends(rigged: Rig) -> tuple[int | None, int | None]:
    """How long the refresh token and the authorization last, as stored after a refresh."""
    await rigged.token()
    tokens = (await rigged.connection()).tokens
    refresh, whole = tokens.refresh_expires_at, tokens.authorization_expires_at
    return (
        None if refresh is None else refresh - tokens.obtained_at,
        None if whole is None else whole - tokens.obtained_at,
    )


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"refresh_token_timeout": 7, "authorization_expires_in": 30}, (7, 30)),
        ({"refresh_token_timeout": "604800"}, (7 * DAY, None)),
        ({"refresh_token_expires_in": 15897600}, (15897600, None)),  # GitHub, Google
        ({"refresh_expires_in": 1800}, (1800, None)),  # Keycloak
        ({"refresh_expires_in": 0}, (None, None)),  # Keycloak, of an offline token
        ({"refresh_token_timeout": 5, "refresh_token_expires_in": 9}, (5, None)),
        ({"authorization_expires_in": "soon", "refresh_token_timeout": [1]}, (None, None)),
        ({"authorization_expires_in": True, "refresh_token_timeout": -1}, (None, None)),
        ({"authorization_expires_in": 1e300}, (None, 10 * 365 * DAY)),
        ({}, (None, None)),
    ],
)  # fmt: skip
async def test_the_ends_are_read_from_a_refresh(
    tmp_path: Path, members: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    async with rig(tmp_path) as rigged:
        rigged.upstream.then(changing(**members))
        rigged.world.clock.advance(EXPIRED)
        assert await ends(rigged) == expected


async def test_an_end_that_is_not_repeated_goes_on_and_a_new_token_has_its_own(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as rigged:
        told = {"refresh_token_timeout": 7 * DAY, "authorization_expires_in": 30 * DAY}
        rigged.upstream.then(changing(**told))
        rigged.upstream.then(changing(refresh_token=None))
        for expected in (
            (7 * DAY, 30 * DAY),
            (7 * DAY - EXPIRED, 30 * DAY - EXPIRED),
            (None, 30 * DAY - 2 * EXPIRED),
        ):
            rigged.world.clock.advance(EXPIRED)
            assert await ends(rigged) == expected


async def needs_user(rigged: Rig) -> Any:
    [right] = (await on(rigged.world, "who-can", "--output", "json")).json["rights"]
    return right["needs_user"]


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(seconds: float) -> str:
    return moment(seconds)[:10]


async def test_who_can_says_when_the_user_is_needed(tmp_path: Path) -> None:
    """The session's own end, then the upstream's where that is sooner."""
    async with rig(tmp_path) as rigged:
        clock = rigged.world.clock
        began = clock()
        assert await needs_user(rigged) == moment(began + ABSOLUTE)
        rigged.upstream.then(changing(authorization_expires_in=30 * DAY))
        clock.advance(EXPIRED)
        await rigged.token()
        assert await needs_user(rigged) == moment(began + EXPIRED + 30 * DAY)
        rigged.upstream.then(changing(authorization_expires_in=300 * DAY))
        clock.advance(EXPIRED)
        await rigged.token()
        assert await needs_user(rigged) == moment(began + ABSOLUTE)
        assert "NEEDS USER" in (await on(rigged.world, "who-can")).out


async def needed(s: Scene) -> float:
    """The gauge after a round of this replica; the number is counted every ten minutes."""
    s.world.clock.advance(601)
    await s.world.server.housekeeping.round()
    return float(s.world.server._metrics.users_needed._value.get())


async def test_the_page_names_the_day_and_the_metric_counts_the_person(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        clock, issuer = s.world.clock, s.world.issuer
        s.second.token_members = {
            "authorization_expires_in": 8 * DAY,
            "refresh_token_timeout": 3 * DAY,
        }
        await connected(s, alice.browser, await s.link(alice.jwt))
        whole, unused = clock() + 8 * DAY, clock() + 3 * DAY
        page = (await alice.browser.open(f"{issuer}/connections")).text
        for text in (
            f'asks for you again on <time datetime="{day(whole)}">',
            f'asks for you by <time datetime="{day(unused)}">',
            f'Needs you again on <time datetime="{day(whole)}">',
        ):
            assert text in page, text
        assert "if no application uses it" not in page
        assert await needed(s) == 0
        clock.advance(DAY)
        assert await needed(s) == 1


async def test_a_person_without_an_end_in_sight_sees_the_sessions_own(tmp_path: Path) -> None:
    async with scene(tmp_path) as s, person(s) as alice:
        page = (await alice.browser.open(f"{s.world.issuer}/connections")).text
        began = s.world.clock()
        assert f'Needs you again on <time datetime="{day(began + ABSOLUTE)}">' in page
        assert f'or on <time datetime="{day(began + 30 * DAY)}">' in page
        assert "asks for you" not in page


async def test_the_metric_counts_each_person_once_and_nobody_who_is_blocked(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s, person(s), person(s), person(s, "bob"):
        assert await needed(s) == 0
        await sql(tmp_path, "UPDATE connections SET dead = 1")
        assert await needed(s) == 2
        await sql(tmp_path, "UPDATE users SET blocked_at = 1")
        assert await needed(s) == 0
