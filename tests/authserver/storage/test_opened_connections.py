"""What was opened before is given out again only while its row and the keys are the same."""

from typing import Any

import pytest

from authserver.storage import opened_connections
from authserver.storage.connection_rows import SealedConnections
from authserver.storage.contract import Database
from authserver.storage.exchanged_tokens import NoSuchSession
from authserver.storage.keyring import DecryptionFailed, Keyring
from authserver.storage.opened_connections import OpenedConnections
from authserver.storage.records import Connection, ConnectionKey, Session
from tests.support.storage_fixtures import KEY, NOW, OWNER, Store, grant, tokens


class CountingKeyring(Keyring):
    """Counts what was unsealed."""

    opened = 0

    def open(self, sealed: bytes, *belongs_to: str | int) -> bytes:
        self.opened += 1
        return super().open(sealed, *belongs_to)


class Fixture:
    """A signed-in user, and reads of the connection as an exchange makes them."""

    def __init__(self, database: Database) -> None:
        self.keyring = CountingKeyring([KEY])
        self.store = Store(database, keyring=self.keyring)
        self.session: Session
        self.now = float(NOW)

    async def sign_in(self) -> "Fixture":
        self.session, _ = await self.store.sign_in(grant())
        return self

    @property
    def key(self) -> ConnectionKey:
        return ConnectionKey(self.session.user_id, self.session.owner, "acme")

    async def read(self) -> Connection:
        found = await self.store.connections.of_session(
            self.session.tsid,
            self.key,
            client_id=self.session.client_id,
            resource=self.session.resource,
            now=self.now,
        )
        assert found is not None
        return found

    async def unsealed(self) -> int:
        """How often the next read unseals."""
        before = self.keyring.opened
        await self.read()
        return self.keyring.opened - before


@pytest.fixture
async def user(database: Database) -> Fixture:
    return await Fixture(database).sign_in()


async def test_a_row_that_did_not_change_is_unsealed_once(user: Fixture) -> None:
    first = await user.read()
    assert await user.unsealed() == 0
    assert await user.read() == first


async def test_the_next_generation_is_what_is_read_next(user: Fixture) -> None:
    before = await user.read()
    await user.store.claims.claim(before, "c", NOW)
    assert (await user.read()).refresh_claim == "c"
    renewed = tokens("rt-2")
    await user.store.claims.swap(before, "c", renewed)
    found = await user.read()
    assert (found.generation, found.tokens) == (before.generation + 1, renewed)


async def test_an_ended_session_gives_nothing_and_is_forgotten(user: Fixture) -> None:
    await user.read()
    await user.store.sessions.end(user.session.tsid, NOW)
    with pytest.raises(NoSuchSession):
        await user.read()
    assert not user.store.connections._opened._recent
    assert not user.store.connections._opened._older


async def test_a_purged_connection_is_forgotten(user: Fixture) -> None:
    await user.read()
    await user.store.sessions.end(user.session.tsid, NOW)
    ended = await user.store.connections.purge_unused(user.session.user_id, user.session.owner, NOW)
    assert [one.connection.key for one in ended] == [user.key]
    assert not user.store.connections._opened._recent


@pytest.mark.parametrize(
    "change",
    ["sealed_tokens = ?", "generation = generation + 1"],
)
async def test_a_row_that_somebody_altered_does_not_open(
    user: Fixture, database: Database, change: str
) -> None:
    row = await database.fetch_one("SELECT sealed_tokens FROM connections")
    assert row is not None
    altered = bytes(row[0][:-1]) + bytes([row[0][-1] ^ 1])
    await user.read()
    arguments = [altered] if "?" in change else []
    await database.write(f"UPDATE connections SET {change}", *arguments)
    with pytest.raises(DecryptionFailed):
        await user.read()


async def test_what_was_opened_under_other_keys_is_dropped(user: Fixture) -> None:
    await user.read()
    user.keyring.replace(Keyring([("k2", b"2" * 32), KEY]))
    assert await user.unsealed() == 1
    assert await user.unsealed() == 0
    user.keyring.replace(Keyring([("k2", b"2" * 32)]))
    with pytest.raises(DecryptionFailed):
        await user.read()


async def test_what_nobody_asks_for_is_dropped_in_time(user: Fixture) -> None:
    await user.read()
    steps = ((299, 0), (299, 0), (600, 1), (300, 0), (300, 0), (-5000, 1), (0, 0))
    for seconds, unsealed in steps:
        user.now += seconds
        assert await user.unsealed() == unsealed, seconds


def test_no_more_are_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_connections, "MOST", 10)
    keyring = CountingKeyring([KEY])
    opened = OpenedConnections(keyring)
    for number in range(100):
        key, values = _row(keyring, f"u{number}")
        opened.open_at(key, values, NOW)
        assert len(opened._recent) + len(opened._older) <= 10


def _row(keyring: Keyring, user: str) -> tuple[ConnectionKey, list[Any]]:

    key = ConnectionKey(user, OWNER, "acme")
    connection = Connection(key, 1, "https://acme.example.com", "alice", tokens())
    sealed = SealedConnections(keyring).seal(connection)
    return key, [1, "", "", "", sealed, 0, None, None, None, None, None, None, 0, 0]
