"""What several replicas do at the same moment happens as if one had done it after the other."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from authserver.handles import hash_of, new_handle
from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.storage.records import AuthorizationRequest, ConnectionKey, PendingSignIn, Stage
from authserver.storage.refresh_tokens import Repeated, Reused, Rotated
from tests.support.storage_fixtures import (
    ENVIRONMENT,
    NOW,
    OWNER,
    ROOT,
    Place,
    Store,
    grant,
    new_refresh_token,
    new_session,
    together,
    tokens,
)


async def test_of_50_redemptions_in_two_processes_one_gets_the_session(
    place: Place, database: Database
) -> None:
    _, code_hash = await Store(database).sign_in()
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.authserver.storage.redeemer",
            place.url,
            str(place.password_file or ""),
            code_hash.hex(),
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
    answers = await together(process.communicate(b"\n") for process in processes)
    assert sorted(int(out) for out, _ in answers) == [0, 1]
    rows = await database.fetch_all("SELECT * FROM refresh_tokens")
    assert len(rows) == 1


async def test_concurrent_rotations_converge_on_one_successor(
    database: Database, other: Database
) -> None:
    store, first = Store(database), new_refresh_token()
    session, code_hash = await store.sign_in()
    await store.codes.redeem(code_hash, now=NOW, session_expires_at=NOW + 3600, refresh_token=first)
    successors = [new_refresh_token() for _ in range(20)]
    outcomes = await together(
        replica.refresh_tokens.rotate(first.token_hash, successor, now=NOW + 1, grace=30)
        for replica, successor in zip([store, Store(other)] * 10, successors, strict=True)
    )
    rotated = [s for s, o in zip(successors, outcomes, strict=True) if isinstance(o, Rotated)]
    assert len(rotated) == 1
    repeated = [o for o in outcomes if isinstance(o, Repeated)]
    assert [o.successor for o in repeated] == [rotated[0].token] * 19
    # One line of descent: the predecessor's predecessor ends the session.
    await store.refresh_tokens.rotate(
        rotated[0].token_hash, new_refresh_token(), now=NOW + 2, grace=30
    )
    again = await store.refresh_tokens.rotate(
        first.token_hash, new_refresh_token(), now=NOW + 3, grace=30
    )
    ended = await store.sessions.get(session.tsid)
    assert again == Reused()
    assert ended is not None
    assert ended.ended_at == NOW + 3


async def test_one_of_many_takes_a_transaction(database: Database, other: Database) -> None:
    request = AuthorizationRequest("c", "https://c/cb", None, "x", "https://r/", "mcp")
    handle, browser = hash_of(new_handle()), hash_of(new_handle())
    replicas = [PendingSignIns(d, Store(d).keyring) for d in (database, other)]
    kept = PendingSignIn(request, ("acme",))
    await replicas[0].put(handle, Stage.CONSENT, browser, kept, expires_at=NOW + 60)
    taken = await together(
        replica.take(handle, Stage.CONSENT, browser, upstream="", now=NOW)
        for replica in replicas * 10
    )
    assert [found for found in taken if found is not None] == [kept]


async def test_first_sign_ins_of_one_user_agree_on_the_user(
    database: Database, other: Database
) -> None:
    replicas = [Store(database), Store(other)] * 5
    signed_in = await together(replica.sign_in() for replica in replicas)
    assert len({session.user_id for session, _ in signed_in}) == 1
    found = await replicas[0].connections.get(ConnectionKey(signed_in[0][0].user_id, OWNER, "acme"))
    assert found is not None
    assert found.generation == 10


async def test_one_of_many_claims_a_generation(database: Database, other: Database) -> None:
    replicas = [Store(database), Store(other)] * 10
    found = await replicas[0].connected()
    taken = await together(
        replica.claims.claim(found, f"claim-{number}", NOW)
        for number, replica in enumerate(replicas)
    )
    assert sum(claim is not None for claim in taken) == 1


async def test_a_sign_in_that_carries_a_refresh_token_over_shuts_the_claim_of_the_old_one_out(
    database: Database, other: Database
) -> None:
    """Both would present the same refresh token, each under a claim of its own generation."""
    store, replica = Store(database), Store(other)
    found = await store.connected()
    kept = grant(found.upstream_subject, refresh_token=None)
    async with database.transaction() as transaction:
        between = _Between(transaction, lambda: replica.claims.claim(found, "late", NOW))
        await store.connections.put(between, found.key.user_id, OWNER, kept)
    claiming = between.started
    assert claiming is not None
    assert not await claiming
    latest = await store.connections.get(found.key)
    assert latest is not None
    assert (latest.generation, latest.tokens.refresh_token) == (2, "rt-1")


async def test_a_claimed_refresh_token_is_not_carried_over(database: Database) -> None:
    store = Store(database)
    found = await store.connected()
    assert await store.claims.claim(found, "mine", NOW)
    await store.sign_in(grant(found.upstream_subject, refresh_token=None))
    latest = await store.connections.get(found.key)
    assert latest is not None
    assert latest.tokens.refresh_token is None
    assert await store.claims.swap(found, "mine", tokens()) is None


async def test_a_purge_does_not_overlook_a_sign_in_that_is_about_to_commit(
    database: Database, other: Database
) -> None:
    store, replica = Store(database), Store(other)
    found = await store.connected()
    user_id = found.key.user_id
    await store.database.write("UPDATE sessions SET ended_at = ?", NOW)
    session = new_session()
    async with database.transaction() as transaction:
        await transaction.fetch_locked("SELECT 1 FROM users WHERE user_id = ?", user_id)
        purging = asyncio.create_task(replica.connections.purge_unused(user_id, OWNER, NOW))
        await asyncio.sleep(0.1)
        await transaction.execute(
            "INSERT INTO sessions (tsid, user_id, client_id, resource, owner_namespace,"
            " owner_name, scope, signed_in_at, created_at, expires_at)"
            " VALUES (?, ?, 'c', 'r', ?, ?, '', 0, 0, ?)",
            session.tsid,
            user_id,
            OWNER.namespace,
            OWNER.name,
            NOW + 60,
        )
    assert await purging == []
    assert await store.connections.get(found.key) is not None


class _Between:
    """Somebody else comes between the read and the write of a transaction."""

    def __init__(self, transaction: Transactional, call: Callable[[], Awaitable[object]]) -> None:
        self._transaction, self._call = transaction, call
        self.started: asyncio.Future[object] | None = None
        self.fetch_one, self.fetch_all = transaction.fetch_one, transaction.fetch_all
        self.execute, self.notify = transaction.execute, transaction.notify
        self.together = transaction.together

    async def fetch_locked(self, sql: str, *arguments: object) -> Row | None:
        row = await self._transaction.fetch_locked(sql, *arguments)
        self.started = asyncio.ensure_future(self._call())
        await asyncio.sleep(0.2)
        return row
