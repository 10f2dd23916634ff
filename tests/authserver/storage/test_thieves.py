"""What somebody who can write to the database gains by moving rows about: nothing opens."""

from collections.abc import Callable

import pytest

from authserver.storage.contract import Database
from authserver.storage.keyring import DecryptionFailed
from authserver.storage.records import ConnectionKey
from chassis.spiffe_id import Workload
from tests.support.storage_fixtures import NOW, Store, new_refresh_token, tokens


async def _sealed(database: Database, user_id: str) -> bytes:
    row = await database.fetch_one(
        "SELECT sealed_tokens FROM connections WHERE user_id = ?", user_id
    )
    assert row is not None
    return bytes(row["sealed_tokens"])


async def _overwrite(database: Database, user_id: str, sealed: bytes) -> None:
    await database.write(
        "UPDATE connections SET sealed_tokens = ? WHERE user_id = ?", sealed, user_id
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: s[:-1] + bytes([s[-1] ^ 1]), id="last bit flipped"),
        pytest.param(lambda s: s[:20] + bytes([s[20] ^ 1]) + s[21:], id="wrapped key flipped"),
        pytest.param(lambda s: s[:-1], id="cut by one"),
        pytest.param(lambda s: s[:30], id="cut short"),
        pytest.param(lambda s: b"", id="emptied"),
        pytest.param(lambda s: b"\x02" + s[1:], id="another version"),
        pytest.param(lambda s: s[:2] + b"k9" + s[4:], id="another key id"),
    ],
)
async def test_an_altered_value_does_not_open(
    database: Database, change: Callable[[bytes], bytes]
) -> None:
    store = Store(database)
    found = await store.connected()
    sealed = await _sealed(database, found.key.user_id)
    await _overwrite(database, found.key.user_id, change(sealed))
    with pytest.raises(DecryptionFailed):
        await store.connections.get(found.key)


@pytest.mark.parametrize("column", ["owner_name", "owner_namespace", "upstream"])
async def test_a_row_that_is_given_another_owner_or_upstream_does_not_open(
    database: Database, column: str
) -> None:
    store = Store(database)
    key = (await store.connected()).key
    await database.write(f"UPDATE connections SET {column} = 'evil' WHERE user_id = ?", key.user_id)
    owner = {"owner_namespace": key.owner.namespace, "owner_name": key.owner.name}
    owner |= {column: "evil"} if column in owner else {}
    moved = ConnectionKey(
        key.user_id, Workload(*owner.values()), "evil" if column == "upstream" else key.upstream
    )
    with pytest.raises(DecryptionFailed):
        await store.connections.get(moved)


async def test_tokens_do_not_open_in_another_users_row(database: Database) -> None:
    store = Store(database)
    victim, thief = await store.connected(), await store.connected()
    await _overwrite(database, thief.key.user_id, await _sealed(database, victim.key.user_id))
    with pytest.raises(DecryptionFailed):
        await store.connections.get(thief.key)


async def test_tokens_of_an_earlier_generation_do_not_open(database: Database) -> None:
    store = Store(database)
    found = await store.connected()
    old = await _sealed(database, found.key.user_id)
    assert await store.claims.claim(found, "mine", NOW)
    assert await store.claims.swap(found, "mine", tokens("rt-2"))
    await _overwrite(database, found.key.user_id, old)
    with pytest.raises(DecryptionFailed):
        await store.connections.get(found.key)


async def test_a_successor_does_not_open_for_another_predecessor(database: Database) -> None:
    store = Store(database)
    presented = []
    for _ in range(2):
        _, code_hash = await store.sign_in()
        first = new_refresh_token()
        await store.codes.redeem(
            code_hash, now=NOW, session_expires_at=NOW + 3600, refresh_token=first
        )
        await store.refresh_tokens.rotate(first.token_hash, new_refresh_token(), now=NOW, grace=30)
        presented.append(first.token_hash)
    row = await database.fetch_one(
        "SELECT sealed_successor FROM refresh_tokens WHERE token_hash = ?", presented[0]
    )
    assert row is not None
    await database.write(
        "UPDATE refresh_tokens SET sealed_successor = ? WHERE token_hash = ?",
        row["sealed_successor"],
        presented[1],
    )
    with pytest.raises(DecryptionFailed):
        await store.refresh_tokens.rotate(presented[1], new_refresh_token(), now=NOW + 1, grace=30)
