"""What becomes of stored tokens when nobody can be served from them any more, on both engines."""

import pytest

from authserver.audit import Audit
from authserver.config.upstreams import OidcUpstream
from authserver.connections.registration_binding import RegistrationBinding
from authserver.connections.termination import SessionTermination
from authserver.housekeeping import CleanUpStores, Housekeeping
from authserver.metrics import Metrics
from authserver.oauth.resources import Resource, ResourceMap
from authserver.storage.absent_registrations import AbsentRegistrations
from authserver.storage.consents import Given, remember
from authserver.storage.contract import Database
from authserver.storage.exchanged_tokens import ExchangedTokens
from authserver.storage.expiry import BATCH, Expiry
from authserver.storage.leases import Leases
from authserver.storage.operator_events import OperatorEvents
from authserver.storage.orphaned_owners import OrphanedOwners, Owned
from authserver.storage.records import Session
from authserver.storage.users_needed import UsersNeeded
from authserver.upstream.http_client import UpstreamHttp
from authserver.upstream.oidc import Oidc
from chassis.probes import new_registry
from chassis.spiffe_id import Workload
from tests.support.revoking import revoker
from tests.support.storage_fixtures import NOW, OWNER, RESOURCE, Store, grant

DAY = 86400
OURS: Owned = (RESOURCE, OWNER)
OTHER_OWNER: Owned = (RESOURCE, Workload(OWNER.namespace, "tasks"))
OTHER_NAMESPACE: Owned = (RESOURCE, Workload("elsewhere", OWNER.name))
OTHER_RESOURCE: Owned = (f"{RESOURCE}/other", OWNER)


class House:
    """Replicas that keep one database, on a day that tests choose, with maps that they change."""

    def __init__(self, database: Database) -> None:
        self.store, self.former_owners = Store(database), OrphanedOwners(database)
        self.day = 0.0
        self._maps: dict[str, ResourceMap] = {}
        self._replicas = {name: self._replica(name) for name in ("one", "other")}

    def _replica(self, name: str) -> Housekeeping:
        database, store = self.store.database, self.store
        sessions, connections = store.sessions, store.connections
        self._maps[name] = ResourceMap([])
        absent = AbsentRegistrations(database, store.keyring)
        binding = RegistrationBinding({"acme": self._acme()}, absent, self._clock)
        revoking = revoker(database, store.keyring, binding, self._clock)
        return Housekeeping(
            CleanUpStores(
                Leases(database),
                Expiry(database),
                self.former_owners,
                absent,
                sessions,
                connections,
                ExchangedTokens(database, store.keyring),
                OperatorEvents(database),
                UsersNeeded(database),
            ),
            self._maps[name],
            binding,
            SessionTermination(sessions, connections, revoking, Audit(b"k" * 32), self._clock),
            revoking,
            Audit(b"k" * 32),
            Metrics(new_registry()),
            self._clock,
            name,
            absolute_seconds=90 * 86400,
        )

    def _acme(self) -> Oidc:
        settings = OidcUpstream.model_validate(
            {
                "name": "acme",
                "type": "oidc",
                "issuer": grant().upstream_issuer,
                "clientId": "tokenward",
            }
        )
        return Oidc(settings, UpstreamHttp(), self._clock)

    def _clock(self) -> float:
        return NOW + self.day * DAY

    async def keep(self, day: float, *named: Owned, replica: str = "one") -> None:
        """Two rounds while the map names these: what the first one ends, the second deletes."""
        self.day = day
        self._maps[replica].replace(Resource(url, owner, ("acme",), ()) for url, owner in named)
        for _ in range(2):
            await self._replicas[replica].round()

    async def sign_in(self, owned: Owned = OURS, subject: str = "alice") -> Session:
        """A session of ninety days, with its connection."""
        resource, owner = owned
        session, _ = await self.store.sign_in(
            grant(subject), resource=resource, owner=owner, expires_at=NOW + 90 * DAY
        )
        return session

    async def count(self, table: str) -> int:
        return len(await self.store.database.fetch_all(f"SELECT 1 FROM {table}"))

    async def left(self) -> tuple[int, int]:
        """How many sessions and connections there are."""
        return await self.count("sessions"), await self.count("connections")


@pytest.fixture
def house(database: Database) -> House:
    return House(database)


async def test_an_expired_session_takes_its_connections_along(house: House) -> None:
    await house.sign_in()
    await house.keep(89.9, OURS)
    assert await house.left() == (1, 1)
    await house.keep(90, OURS)
    assert await house.left() == (0, 0)


async def test_a_connection_stays_with_the_last_session_that_lives(house: House) -> None:
    first = await house.sign_in()
    await house.sign_in()
    await house.store.sessions.end(first.tsid, NOW)
    await house.keep(0, OURS)
    assert await house.left() == (1, 1)


@pytest.mark.parametrize("named", [OTHER_OWNER, OTHER_NAMESPACE, OTHER_RESOURCE, None])
async def test_what_a_former_owner_held_is_purged_after_a_week(
    house: House, named: Owned | None
) -> None:
    await house.sign_in()
    names = [named] if named else []
    await house.keep(1, *names)
    await house.keep(7.9, *names)
    assert await house.left() == (1, 1)
    await house.keep(8, *names)
    assert await house.left() == (0, 0)
    assert await house.count("former_owners") == 0


async def test_a_resource_that_is_back_within_a_week_costs_nobody_a_sign_in(house: House) -> None:
    await house.sign_in()
    for day in range(0, 60, 6):
        await house.keep(day, OURS)
        await house.keep(day + 5)
    assert await house.left() == (1, 1)


async def test_a_week_counts_from_when_the_owner_was_missed_first(house: House) -> None:
    """Not from when it was seen last: nobody looked while everything was switched off."""
    await house.sign_in()
    await house.keep(0, OURS)
    await house.keep(30)
    assert await house.left() == (1, 1)
    await house.keep(36.9)
    assert await house.left() == (1, 1)
    await house.keep(37)
    assert await house.left() == (0, 0)


async def test_an_owner_whom_any_replica_names_is_no_former_one(house: House) -> None:
    """The one whose turn it is may have been refused the new map."""
    await house.sign_in()
    for day in range(1, 20):
        await house.keep(day)
        await house.keep(day, OURS, replica="other")
    assert await house.left() == (1, 1)
    assert await house.count("former_owners") == 0


async def test_nothing_of_another_owner_or_resource_goes_along(house: House) -> None:
    others = [OTHER_OWNER, OTHER_NAMESPACE, OTHER_RESOURCE]
    kept = {(await house.sign_in(owned)).tsid for owned in others}
    await house.sign_in()
    for day in (0, 8):
        await house.keep(day, OTHER_OWNER, OTHER_RESOURCE)
        await house.keep(day, OTHER_NAMESPACE, OTHER_RESOURCE, replica="other")
    rows = await house.store.database.fetch_all("SELECT tsid FROM sessions")
    assert {row["tsid"] for row in rows} == kept


async def test_every_former_owner_is_found(house: House) -> None:
    for owned in (OURS, OTHER_OWNER, OTHER_NAMESPACE, OTHER_RESOURCE):
        await house.sign_in(owned)
        await house.sign_in(owned)
    for day in (0, 8):
        await house.keep(day, OTHER_OWNER)
    rows = await house.store.database.fetch_all("SELECT DISTINCT owner_name FROM sessions")
    assert [row["owner_name"] for row in rows] == ["tasks"]


async def test_the_sessions_of_a_former_owner_end_in_batches(house: House) -> None:
    async with house.store.database.transaction() as transaction:
        await transaction.execute(
            "INSERT INTO users (user_id, upstream_issuer, subject, created_at)"
            " VALUES ('u', 'i', 's', 0)"
        )
        for number in range(BATCH + 5):
            await transaction.execute(
                "INSERT INTO sessions (tsid, user_id, client_id, resource, owner_namespace,"
                " owner_name, scope, created_at, expires_at, signed_in_at)"
                " VALUES (?, 'u', 'c', ?, ?, ?, '', 0, ?, 0)",
                str(number),
                RESOURCE,
                OWNER.namespace,
                OWNER.name,
                NOW + 90 * DAY,
            )
    await house.keep(0)
    await house.keep(8)
    assert await house.count("sessions") == 5
    await house.keep(8)
    assert await house.left() == (0, 0)
    assert await house.count("former_owners") == 0


async def test_what_its_users_agreed_to_is_forgotten_with_a_session(house: House) -> None:
    session = await house.sign_in()
    given = Given("question", session.client_id, session.resource, NOW + 90 * DAY)
    async with house.store.database.transaction() as transaction:
        await remember(transaction, session.user_id, given)
    await house.keep(0)
    assert await house.count("consents") == 1
    await house.keep(8)
    assert await house.count("consents") == 0


async def test_a_session_that_has_ended_before_is_left_as_it_is(house: House) -> None:
    session = await house.sign_in()
    await house.store.sessions.end(session.tsid, NOW)
    assert await house.former_owners.sessions_of(OURS) == []
    await house.former_owners.find([], NOW)
    assert await house.former_owners.since(NOW) == []
