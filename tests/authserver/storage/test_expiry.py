"""What expired goes, in batches; what is needed to notice a replay stays."""

from pathlib import Path

import pytest

from authserver.audit import Audit
from authserver.connections.registration_binding import RegistrationBinding
from authserver.connections.termination import SessionTermination
from authserver.handles import hash_of
from authserver.housekeeping import CleanUpStores, Housekeeping
from authserver.metrics import Metrics
from authserver.oauth.resources import ResourceMap
from authserver.storage.absent_registrations import AbsentRegistrations
from authserver.storage.contract import StorageUnavailable
from authserver.storage.exchanged_tokens import ExchangedTokens
from authserver.storage.leases import Leases
from authserver.storage.operator_events import OperatorEvents
from authserver.storage.orphaned_owners import OrphanedOwners
from authserver.storage.users_needed import UsersNeeded
from chassis.probes import new_registry
from tests.support.database_file import count, sql
from tests.support.revoking import revoker
from tests.support.storage_files import NOW, OWNER, Store, stores


def housekeeping(store: Store, now: int) -> Housekeeping:
    def clock() -> float:
        return float(now)

    absent = AbsentRegistrations(store.database, store.keyring)
    binding = RegistrationBinding({}, absent, clock)
    audit = Audit(b"k" * 32)
    revoking = revoker(store.database, store.keyring, binding, clock)
    termination = SessionTermination(store.sessions, store.connections, revoking, audit, clock)
    return Housekeeping(
        CleanUpStores(
            Leases(store.database),
            store.sweeper,
            OrphanedOwners(store.database),
            absent,
            store.sessions,
            store.connections,
            ExchangedTokens(store.database, store.keyring),
            OperatorEvents(store.database),
            UsersNeeded(store.database),
        ),
        ResourceMap([]),
        binding,
        termination,
        revoking,
        audit,
        Metrics(new_registry()),
        clock,
        "replica",
        absolute_seconds=90 * 86400,
    )


async def test_what_is_alive_is_left_alone(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        await housekeeping(store, NOW + 999).sweep()
        for table in ("sessions", "codes", "refresh_tokens", "connections"):
            assert await count(tmp_path, table) == 1


async def test_an_expired_session_goes_with_all_that_hangs_on_it(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        await housekeeping(store, NOW + 1000).sweep()
        for table in ("sessions", "codes", "refresh_tokens", "connections"):
            assert await count(tmp_path, table) == 0


async def test_only_who_has_a_connection_is_looked_at_when_a_session_is_over(
    tmp_path: Path,
) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        assert await store.sweeper.over_sessions(NOW + 999) == {}
        assert await store.sweeper.over_sessions(NOW + 1000) == {"s1": ("u1", OWNER)}
        await sql(tmp_path, "UPDATE connections SET owner_name = 'tasks'")
        assert await store.sweeper.over_sessions(NOW + 1000) == {"s1": None}


async def test_a_connection_that_another_session_holds_stays(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed("s1")
        await store.redeemed("s2")
        await store.sessions.end("s1", NOW)
        await housekeeping(store, NOW).sweep()
        assert (await count(tmp_path, "sessions"), await count(tmp_path, "connections")) == (1, 1)


async def test_a_redeemed_code_is_kept_with_its_session_to_notice_a_replay(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed("s1")
        await store.sign_in("s2", expires_at=NOW + 10)
        await store.sweeper.expired(NOW + 500)
        assert await store.codes.get(hash_of("code-s1"), NOW + 500) is not None
        assert await count(tmp_path, "codes") == 1


async def test_a_sweep_takes_a_batch_and_the_next_one_the_rest(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        async with store.database.transaction() as transaction:
            for n in range(450):
                await transaction.execute(
                    "INSERT INTO clients VALUES (?, '{}', NULL, 0, ?)", f"c{n}", NOW
                )
        assert [await store.sweeper.expired(NOW) for _ in range(4)] == [200, 200, 50, 0]


async def test_a_client_that_was_used_is_never_swept(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.database.write("INSERT INTO clients VALUES ('c', '{}', NULL, 0, NULL)")
        assert await store.sweeper.expired(NOW * 2) == 0


async def test_a_sweep_that_breaks_off_leaves_no_connection_behind_for_good(
    tmp_path: Path,
) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        await sql(
            tmp_path,
            "CREATE TRIGGER broken BEFORE DELETE ON connections"
            " BEGIN SELECT RAISE(ABORT, 'x'); END",
        )
        with pytest.raises(StorageUnavailable):
            await housekeeping(store, NOW + 1000).sweep()
        await sql(tmp_path, "DROP TRIGGER broken")
        await housekeeping(store, NOW + 1000).sweep()
        assert await count(tmp_path, "connections") == 0


async def test_a_record_nobody_can_open_does_not_stop_the_sweeping(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        await sql(tmp_path, "UPDATE connections SET sealed_tokens = zeroblob(200)")
        await housekeeping(store, NOW + 1000).sweep()
        assert await count(tmp_path, "connections") == 0
