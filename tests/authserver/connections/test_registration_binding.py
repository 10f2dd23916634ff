"""A connection belongs to the issuer and client id that gave its tokens, in every use of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from authserver.config.loader import load
from authserver.storage.connection_rows import SealedConnections
from authserver.storage.records import ConnectionKey
from chassis.spiffe_id import Workload
from tests.fakes.upstream import HostileUpstream
from tests.support.database_file import sql
from tests.support.deployment import Answer, Deployment, SignedIn, deployed
from tests.support.forged_tokens import claims_of
from tests.support.workloads import NOTES_SERVER, UNLIMITED, audited, replica, verdict

MUST_SIGN_IN = (400, {"error": "invalid_grant"})
UNAVAILABLE = (503, {"error": "temporarily_unavailable"})
GRACE, HOUR, DAY = 600, 3600, 86400


@dataclass
class Moving:
    """A user signed in at one provider, and another one that the operator may point at."""

    world: Deployment
    old: HostileUpstream
    new: HostileUpstream
    user: SignedIn

    async def configured(self, upstream: HostileUpstream, **members: Any) -> None:
        file = self.world.folder / "authserver.yaml"
        raw = yaml.safe_load(file.read_text())
        raw["upstreams"] = [upstream.configuration[0] | members]
        file.write_text(yaml.safe_dump(raw))
        await self.world.server.reload(load(file))

    async def renamed(self, name: str) -> None:
        """The upstream is called otherwise, as far as the configuration says."""
        file = self.world.folder / "authserver.yaml"
        raw = yaml.safe_load(file.read_text())
        raw["upstreams"] = [raw["upstreams"][0] | {"name": name}]
        raw["resources"] = [one | {"upstreams": [name]} for one in raw["resources"]]
        file.write_text(yaml.safe_dump(raw))
        await self.world.server.reload(load(file))

    async def exchange(self) -> Answer:
        return await self.world.exchange(NOTES_SERVER, self.user.access_token)

    async def refresh(self) -> Answer:
        return await self.world.refresh(self.user.client_id, self.user.refresh_token)


@asynccontextmanager
async def moving(folder: Path) -> AsyncIterator[Moving]:
    async with (
        HostileUpstream().serve() as old,
        HostileUpstream().serve() as new,
        deployed(folder, upstreams=old.configuration, limits=UNLIMITED) as world,
    ):
        yield Moving(world, old, new, await world.signed_in())


async def test_tokens_of_one_provider_are_neither_released_nor_shown_to_another(
    tmp_path: Path,
) -> None:
    async with moving(tmp_path) as it:
        await it.configured(it.new)
        assert verdict(await it.exchange()) == UNAVAILABLE
        it.world.clock.advance(GRACE - 1)
        assert verdict(await it.exchange()) == UNAVAILABLE
        assert (await it.refresh()).status == 503
        it.world.clock.advance(1)
        assert verdict(await it.exchange()) == MUST_SIGN_IN
        assert (await it.refresh()).status == 503  # its client does not open a sign-in yet
        it.world.clock.advance(HOUR - GRACE - 1)
        assert (await it.refresh()).status == 503
        it.world.clock.advance(1)
        assert (await it.refresh()).status == 400
        assert it.old.presented == it.new.presented == []


async def test_the_hour_is_counted_across_restarts(tmp_path: Path) -> None:
    async with moving(tmp_path) as it:
        await it.configured(it.new)
        assert verdict(await it.exchange()) == UNAVAILABLE
        it.world.clock.advance(GRACE)
        async with replica(it.world) as restarted:
            answer = await restarted.exchange(NOTES_SERVER, it.user.access_token)
            assert verdict(answer) == MUST_SIGN_IN


async def test_nobody_asks_and_the_hour_is_counted_all_the_same(tmp_path: Path) -> None:
    async with moving(tmp_path) as it:
        await it.configured(it.new)
        await it.world.server.housekeeping.round()
        it.world.clock.advance(GRACE)
        assert verdict(await it.exchange()) == MUST_SIGN_IN
        it.world.clock.advance(HOUR - GRACE)
        assert (await it.refresh()).status == 400


async def test_a_slip_in_the_client_id_put_right_costs_nobody_a_sign_in(tmp_path: Path) -> None:
    async with moving(tmp_path) as it:
        await it.configured(it.old, clientId="another")
        it.world.clock.advance(100)
        assert verdict(await it.exchange()) == UNAVAILABLE
        it.world.clock.advance(GRACE)
        assert verdict(await it.exchange()) == MUST_SIGN_IN
        assert it.old.presented == []
        await it.configured(it.old)
        assert (await it.exchange()).json()["access_token"] == "access-2"
        assert it.old.presented == ["refresh-1"]


async def test_a_revocation_goes_to_nobody_but_who_gave_the_tokens(tmp_path: Path) -> None:
    async with moving(tmp_path) as it:
        await it.configured(it.new)
        fields = {"token": it.user.access_token, "client_id": it.user.client_id}
        assert (await it.world.call("POST", "/oauth/revoke", data=fields)).status == 200
        await it.world.server.drain()
        assert it.old.revoked == it.new.revoked == []
        assert await sql(tmp_path, "SELECT * FROM connections") == []


@pytest.mark.parametrize("change", ["issuer", "client", "name"])
async def test_a_connection_of_a_registration_that_is_gone_for_a_week_is_purged_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    async with moving(tmp_path) as it:
        user_id = claims_of(it.user.access_token)["sub"]
        match change:
            case "issuer":
                await it.configured(it.new)
            case "client":
                await it.configured(it.old, clientId="another")
            case _:
                await it.renamed("acne")
        house = it.world.server.housekeeping
        await house.round()
        it.world.clock.advance(7 * DAY - 1)
        await house.round()
        assert await sql(tmp_path, "SELECT user_id FROM connections") == [(user_id,)]
        it.world.clock.advance(1)
        with audited(caplog) as trail:
            await house.round()
        assert await sql(tmp_path, "SELECT * FROM connections") == []
        assert await sql(tmp_path, "SELECT * FROM absent_registrations") == []
        (event,) = [one for one in trail.events if one["action"] == "connection_purge"]
        assert (event["outcome"], event["reason"]) == ("failed", "not_revoked_upstream")
        assert event["upstream"] == "acme"
        assert event["user"]
        assert user_id not in str(event)
        logged = [record for record in caplog.records if record.msg == "not_revoked_upstream"]
        assert [record.fields["upstream"] for record in logged] == ["acme"]  # type: ignore[attr-defined]
        assert it.old.revoked == it.new.revoked == []


async def test_a_registration_that_is_back_within_the_week_costs_nobody_a_sign_in(
    tmp_path: Path,
) -> None:
    async with moving(tmp_path) as it:
        house = it.world.server.housekeeping
        for _ in range(2):
            await it.configured(it.new)
            await house.round()
            it.world.clock.advance(6 * DAY)
            await house.round()
            await it.configured(it.old)
            await house.round()
        assert (await it.refresh()).status == 200
        assert await sql(tmp_path, "SELECT upstream FROM connections") == [("acme",)]


async def test_a_connection_made_anew_meanwhile_is_not_purged(tmp_path: Path) -> None:
    async with moving(tmp_path) as it:
        await it.configured(it.new)
        house = it.world.server.housekeeping
        await house.round()
        await it.world.signed_in()
        it.world.clock.advance(8 * DAY)
        await house.round()
        bound = "SELECT authorization_server FROM connections"
        assert await sql(tmp_path, bound) == [(it.new.issuer,)]


async def test_a_former_registration_is_used_until_its_end(tmp_path: Path) -> None:
    async with moving(tmp_path) as it:
        until = datetime.fromtimestamp(it.world.clock() + 200, UTC).isoformat()
        former = {"clientId": "tokenward", "clientSecretFile": "upstream-secret", "until": until}
        await it.configured(it.old, clientId="another", former=[former])
        it.world.clock.advance(100)
        assert (await it.exchange()).json()["access_token"] == "access-2"
        it.world.clock.advance(100)
        assert verdict(await it.exchange()) == UNAVAILABLE
        it.world.clock.advance(GRACE)
        assert verdict(await it.exchange()) == MUST_SIGN_IN


async def test_a_connection_stored_before_registrations_is_bound_at_its_refresh(
    tmp_path: Path,
) -> None:
    async with moving(tmp_path) as it:
        user_id = claims_of(it.user.access_token)["sub"]
        key = ConnectionKey(user_id, Workload("mcp-servers", "notes"), "acme")
        connection = await it.world.server._stores.connections.get(key)
        assert connection is not None
        sealed = SealedConnections(load(tmp_path / "authserver.yaml").keyring())
        before = sealed.seal(replace(connection, registration=None))
        await sql(
            tmp_path,
            "UPDATE connections SET sealed_tokens = ?, authorization_server = NULL,"
            " registered_client_id = NULL",
            before,
        )
        assert (await it.exchange()).json()["access_token"] == "access-1"
        it.world.clock.advance(100)
        assert (await it.exchange()).json()["access_token"] == "access-2"
        bound = "SELECT authorization_server, registered_client_id FROM connections"
        assert await sql(tmp_path, bound) == [(it.old.issuer, "tokenward")]


async def test_a_row_whose_registration_was_changed_does_not_open(tmp_path: Path) -> None:
    async with moving(tmp_path) as it:
        await sql(tmp_path, "UPDATE connections SET registered_client_id = 'another'")
        await it.configured(it.old, clientId="another")
        assert (await it.exchange()).status == 503
        it.world.clock.advance(100)
        assert (await it.exchange()).status == 503
        assert it.old.presented == []
