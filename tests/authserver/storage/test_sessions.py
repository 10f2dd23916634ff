"""Codes are redeemed once, refresh tokens rotate with grace, and reuse ends the session."""

import asyncio
from pathlib import Path

import pytest

from authserver.handles import hash_of
from authserver.storage.keyring import DecryptionFailed
from authserver.storage.records import UpstreamTokens
from authserver.storage.refresh_tokens import NewRefreshToken, Repeated, Reused, Rotated
from tests.support.database_file import count, sql
from tests.support.storage_files import NOW, Store, refresh_token, stores

GRACE = 30


async def redeem(store: Store, now: int = NOW, token: str | None = None) -> bool:
    session = await store.codes.redeem(
        hash_of("code-s1"),
        now=now,
        session_expires_at=now + 1000,
        refresh_token=refresh_token(token) if token else None,
    )
    return session is not None


async def rotate(
    store: Store, presented: str, successor: str, now: int = NOW, expires_at: int = NOW + 1000
) -> Rotated | Repeated | Reused | None:
    new = refresh_token(successor, expires_at)
    return await store.refresh_tokens.rotate(hash_of(presented), new, now=now, grace=GRACE)


async def test_of_fifty_redemptions_at_two_instances_one_succeeds(tmp_path: Path) -> None:
    async with stores(tmp_path) as (one, other):
        await one.sign_in()
        tries = [redeem(store, token=None) for _ in range(25) for store in (one, other)]
        assert sum(await asyncio.gather(*tries)) == 1


async def test_a_redeemed_code_is_remembered_but_gives_nothing(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        assert await redeem(store, token="rt-1")
        assert not await redeem(store, token="rt-2")
        code = await store.codes.get(hash_of("code-s1"), NOW + 500)
        assert code is not None
        assert code.redeemed
        assert await store.refresh_tokens.session(hash_of("rt-2")) is None


async def test_a_code_is_over_at_its_end(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in(expires_at=NOW + 60)
        assert await store.codes.get(hash_of("code-s1"), NOW + 59) is not None
        assert await store.codes.get(hash_of("code-s1"), NOW + 60) is None
        assert not await redeem(store, now=NOW + 60)
        assert await redeem(store, now=NOW + 59)


async def test_the_code_of_an_ended_session_leads_nowhere(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in()
        await store.sessions.end("s1", NOW)
        assert not await redeem(store, token="rt-1")
        assert await store.refresh_tokens.session(hash_of("rt-1")) is None


async def test_fifty_refreshes_at_two_instances_converge_on_one_successor(tmp_path: Path) -> None:
    async with stores(tmp_path) as (one, other):
        await one.redeemed()
        outcomes = await asyncio.gather(
            *(rotate(store, "rt-s1", f"new-{n}") for n, store in enumerate((one, other) * 25))
        )
        assert sum(isinstance(outcome, Rotated) for outcome in outcomes) == 1
        repeated = {outcome.successor for outcome in outcomes if isinstance(outcome, Repeated)}
        assert len(repeated) == 1
        assert sum(isinstance(outcome, Repeated) for outcome in outcomes) == 49
        assert await count(tmp_path, "refresh_tokens") == 2


@pytest.mark.parametrize(("passed", "forgiven"), [(0, True), (30, True), (31, False)])
async def test_a_predecessor_is_forgiven_for_thirty_seconds(
    tmp_path: Path, passed: int, forgiven: bool
) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        assert await rotate(store, "rt-s1", "second") == Rotated()
        again = await rotate(store, "rt-s1", "third", now=NOW + passed)
        assert again == (Repeated("second", NOW + 1000) if forgiven else Reused())
        session = await store.sessions.get("s1")
        assert session is not None
        assert session.live(NOW + passed) is forgiven


async def test_no_grace_is_left_once_the_successor_was_used(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        await rotate(store, "rt-s1", "second")
        assert await rotate(store, "second", "third") == Rotated()
        assert await rotate(store, "rt-s1", "fourth") == Reused()
        assert await rotate(store, "third", "fifth") is None


async def test_only_the_last_predecessors_successor_is_kept_and_only_sealed(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        await rotate(store, "rt-s1", "second-canary")
        await rotate(store, "second-canary", "third-canary")
        rows = await sql(tmp_path, "SELECT sealed_successor IS NOT NULL FROM refresh_tokens")
        assert sorted(row[0] for row in rows) == [0, 0, 1]
        assert b"canary" not in (tmp_path / "tokenward.db").read_bytes()


async def test_a_sealed_successor_opens_only_for_its_own_predecessor(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed("s1")
        await store.redeemed("s2")
        await rotate(store, "rt-s1", "one")
        await rotate(store, "rt-s2", "two")
        ((stolen,),) = await sql(
            tmp_path, "SELECT sealed_successor FROM refresh_tokens WHERE token_hash = ?",
            hash_of("rt-s1"),
        )  # fmt: skip
        await sql(
            tmp_path, "UPDATE refresh_tokens SET sealed_successor = ? WHERE token_hash = ?",
            stolen, hash_of("rt-s2"),
        )  # fmt: skip
        with pytest.raises(DecryptionFailed):
            await rotate(store, "rt-s2", "three")


@pytest.mark.parametrize(
    ("presented", "now"),
    [("unknown", NOW), ("rt-s1", NOW + 1000), ("code-s1", NOW), ("", NOW)],
)
async def test_what_is_no_live_refresh_token_is_not_rotated(
    tmp_path: Path, presented: str, now: int
) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        assert await rotate(store, presented, "second", now=now) is None
        assert await count(tmp_path, "refresh_tokens") == 1


async def test_a_session_lasts_as_long_as_its_newest_refresh_token(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.redeemed()
        await rotate(store, "rt-s1", "second", expires_at=NOW + 2000)
        session = await store.sessions.get("s1")
        assert session is not None
        assert session.live(NOW + 1999)
        assert not session.live(NOW + 2000)
        assert await rotate(store, "second", "third", now=NOW + 1999) == Rotated()


async def test_an_ended_session_stays_ended(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, other):
        await store.redeemed()
        await store.sessions.end("s1", NOW)
        await other.sessions.end("s1", NOW + 5)
        assert await rotate(other, "rt-s1", "second") is None
        session = await other.sessions.get("s1")
        assert session is not None
        assert session.ended_at == NOW
        assert await other.sessions.live(NOW) == 0


async def test_a_sign_in_that_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await store.sign_in("s1")
        before = await sql(tmp_path, "SELECT generation FROM connections")
        await sql(
            tmp_path,
            "CREATE TRIGGER broken BEFORE INSERT ON codes BEGIN SELECT RAISE(ABORT, 'x'); END",
        )
        with pytest.raises(Exception, match="IntegrityError"):
            await store.sign_in("s2", user="u2", subject="bob")
        assert await count(tmp_path, "sessions") == 1
        assert await count(tmp_path, "users") == 1
        assert await sql(tmp_path, "SELECT generation FROM connections") == before


async def test_a_user_is_known_by_issuer_and_subject(tmp_path: Path) -> None:
    async with stores(tmp_path) as (one, other):
        alice, again, bob = await asyncio.gather(
            one.sign_in("s1", user="u1"),
            other.sign_in("s2", user="u2"),
            one.sign_in("s3", user="u3", subject="bob"),
        )
        assert alice.user_id == again.user_id != bob.user_id


@pytest.mark.parametrize(
    "value",
    [
        Repeated("secret canary", NOW),
        NewRefreshToken("secret canary", b"secret canary", NOW),
        UpstreamTokens("secret canary", "secret canary", None, NOW, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_repr_of_a_token_shows_it(value: object) -> None:
    assert "canary" not in repr(value)
