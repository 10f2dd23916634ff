"""A sign-in under way is taken once, by the browser that started it, and by nobody else."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from authserver.storage.keyring import DecryptionFailed
from authserver.storage.records import AuthorizationRequest, PendingSignIn, Stage
from tests.support.database_file import sql
from tests.support.storage_files import NOW, Store, stores

REQUEST = AuthorizationRequest("client", "https://c/cb", "state", "challenge", "https://r", "mcp")
UNDER_WAY = PendingSignIn(REQUEST, ("other",), "acme", "nonce canary", "verifier canary")
HANDLE, BROWSER = b"h" * 32, b"b" * 32


async def put(store: Store, handle: bytes = HANDLE) -> None:
    await store.transactions.put(handle, Stage.UPSTREAM, BROWSER, UNDER_WAY, expires_at=NOW + 600)


async def take(store: Store, **changes: Any) -> PendingSignIn | None:
    asked: dict[str, Any] = {
        "handle_hash": HANDLE,
        "stage": Stage.UPSTREAM,
        "browser_hash": BROWSER,
        "upstream": "acme",
        "now": NOW,
    }
    return await store.transactions.take(**(asked | changes))


async def test_of_fifty_takers_at_two_instances_one_succeeds(tmp_path: Path) -> None:
    async with stores(tmp_path) as (one, other):
        await put(one)
        taken = await asyncio.gather(*(take(store) for store in (one, other) * 25))
        assert [found for found in taken if found is not None] == [UNDER_WAY]


@pytest.mark.parametrize(
    "wrong",
    [
        {"browser_hash": b"x" * 32},
        {"stage": Stage.CONSENT},
        {"upstream": "other"},
        {"upstream": ""},
        {"handle_hash": b"x" * 32},
        {"now": NOW + 600},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_whoever_may_not_take_it_does_not_use_it_up(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    async with stores(tmp_path) as (store, _):
        await put(store)
        assert await take(store, **wrong) is None
        assert await take(store, now=NOW + 599) == UNDER_WAY
        assert await take(store) is None


async def test_nothing_of_it_is_readable_at_rest(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await put(store)
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"canary" not in stored
        assert b"https://c/cb" not in stored


async def test_it_opens_only_under_its_own_handle_and_stage(tmp_path: Path) -> None:
    async with stores(tmp_path) as (store, _):
        await put(store)
        await sql(tmp_path, "UPDATE transactions SET handle_hash = ?", b"i" * 32)
        with pytest.raises(DecryptionFailed):
            await take(store, handle_hash=b"i" * 32)
        await put(store)
        await sql(tmp_path, "UPDATE transactions SET stage = 'consent'")
        with pytest.raises(DecryptionFailed):
            await take(store, stage=Stage.CONSENT)
