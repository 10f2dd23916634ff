"""Encryption keys come, seal, and go only when nothing needs them any more."""

import pytest
from msgspec.structs import replace

from authserver.storage.contract import Database, StorageOpenError
from authserver.storage.key_rotation import KeyRotation, Progress
from authserver.storage.keyring import DecryptionFailed, Keyring
from authserver.storage.records import ConnectionKey
from tests.support.storage_fixtures import KEY, NOW, Store, grant, new_refresh_token

NEW = ("k2", b"2" * 32)


async def _rewrap(keys: KeyRotation, keyring: Keyring) -> Progress:
    return [Progress(), *[progress async for progress in keys.rewrap(keyring)]][-1]


async def test_after_a_rewrap_the_old_key_may_go(database: Database) -> None:
    old, both = Store(database), Keyring([NEW, KEY])
    found = [await old.connected() for _ in range(3)]
    _, code_hash = await old.sign_in()
    first, second = new_refresh_token(), new_refresh_token()
    await old.codes.redeem(code_hash, now=NOW, session_expires_at=NOW + 3600, refresh_token=first)
    await old.refresh_tokens.rotate(first.token_hash, second, now=NOW, grace=30)
    keys = KeyRotation(database)
    with pytest.raises(StorageOpenError, match=r"k1 is missing, and 5 row\(s\)"):
        await keys.check(Keyring([NEW]))
    assert await _rewrap(keys, both) == Progress(rewrapped=5)
    await keys.check(Keyring([NEW]))
    new = Store(database, NEW)
    assert [await new.connections.get(one.key) for one in found] == found
    again = await new.refresh_tokens.rotate(
        first.token_hash, new_refresh_token(), now=NOW, grace=30
    )
    assert again is not None
    assert getattr(again, "successor", None) == second.token


async def test_where_an_accounts_apis_are_goes_with_its_token_through_a_rewrap(
    database: Database,
) -> None:
    origins = (("instance_url", "https://acme.my.example.com"),)
    one = grant()
    session, _ = await Store(database).sign_in(
        replace(one, tokens=replace(one.tokens, origins=origins))
    )
    assert await _rewrap(KeyRotation(database), Keyring([NEW, KEY])) == Progress(rewrapped=1)
    row = await database.fetch_one("SELECT * FROM connections")
    assert row is not None
    assert not [value for value in row if b"acme.my" in str(value).encode()]
    connections = Store(database, NEW).connections
    found = await connections.get(ConnectionKey(session.user_id, session.owner, "acme"))
    assert found is not None
    assert found.tokens.origins == origins


async def test_a_rewrap_goes_on_where_it_was_broken_off(database: Database) -> None:
    old, both = Store(database), Keyring([NEW, KEY])
    for _ in range(150):
        await old.connected()
    keys = KeyRotation(database)
    async for progress in keys.rewrap(both):
        assert progress == Progress(rewrapped=100)
        break
    assert await _rewrap(keys, both) == Progress(rewrapped=50)


async def test_a_rewrap_leaves_what_changed_meanwhile_to_whoever_changed_it(
    database: Database, other: Database
) -> None:
    store = Store(database)
    found = await store.connected()
    keys = KeyRotation(_ChangesAfterReading(database, other, found.key.user_id))  # type: ignore[arg-type]
    await _rewrap(keys, Keyring([NEW, KEY]))
    row = await database.fetch_one("SELECT sealed_tokens FROM connections")
    assert row is not None
    assert bytes(row["sealed_tokens"]) == b"\x01\x02k1 newer"


class _ChangesAfterReading:
    """Another replica stores new tokens between the read and the write of a rewrap."""

    def __init__(self, database: Database, other: Database, user_id: str) -> None:
        self._database, self._other, self._user_id = database, other, user_id
        self._changed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)

    async def write(self, sql: str, *arguments: object) -> int:
        if not self._changed:
            self._changed = True
            await self._other.write(
                "UPDATE connections SET sealed_tokens = ?, generation = 9 WHERE user_id = ?",
                b"\x01\x02k1 newer",
                self._user_id,
            )
        return await self._database.write(sql, *arguments)


async def test_what_does_not_open_is_counted_and_left(database: Database) -> None:
    store = Store(database)
    await store.connected()
    await database.write("UPDATE connections SET sealed_tokens = ?", b"\x01\x02k1 broken")
    await store.connected()
    keys = KeyRotation(database)
    assert await _rewrap(keys, Keyring([NEW, KEY])) == Progress(rewrapped=1, unreadable=1)
    assert await keys.key_ids() == {"k1", "k2"}


async def test_another_key_under_a_known_id_is_refused(database: Database) -> None:
    keys = KeyRotation(database)
    await keys.check(Keyring([KEY]))
    with pytest.raises(StorageOpenError, match="k1 is not the key"):
        await keys.check(Keyring([("k1", b"x" * 32)]))


async def test_a_lost_key_is_given_up_by_name(database: Database) -> None:
    lost = await Store(database).connected()
    kept = await Store(database, NEW).connected()
    keys = KeyRotation(database)
    assert await keys.forget("k1", NOW) == 1
    await keys.check(Keyring([NEW]))
    new = Store(database, NEW)
    assert await new.connections.get(lost.key) is None
    assert await new.connections.get(kept.key) == kept


async def test_a_value_under_an_unknown_key_costs_only_itself(database: Database) -> None:
    lost = await Store(database).connected()
    new = Store(database, NEW)
    kept = await new.connected()
    with pytest.raises(DecryptionFailed):
        await new.connections.get(lost.key)
    assert await new.connections.get(kept.key) == kept
