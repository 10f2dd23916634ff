"""The one denial is not only worded alike: the same storage is read for it, whatever the reason.

How long each takes is measured by `python -m tests.bench denials`; here the work is counted, which
no busy machine disturbs.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from authserver.storage.contract import Database, Row, Transactional
from authserver.storage.keyring import Keyring
from tests.support.denial_cases import (
    Case,
    another_name,
    another_namespace,
    revoked_session,
    session_for_another_resource,
    session_moved_to_another_owner,
    session_of_another_client,
    session_of_another_user,
    session_over_before_its_token,
    with_claims,
)
from tests.support.deployment import NOTES, deployed
from tests.support.workloads import DENIED, replica, verdict


class Counting:
    """The database, and every statement that went through it."""

    _database: Database

    def __init__(self) -> None:
        self.statements: list[str] = []

    def around(self, database: Database) -> Database:
        self._database = database
        return self

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None:
        self.statements.append(sql)
        return await self._database.fetch_one(sql, *arguments)

    async def look_up(self, sql: str, *arguments: object) -> Row | None:
        self.statements.append(sql)
        return await self._database.look_up(sql, *arguments)

    async def look_all_up(self, sql: str, *arguments: object) -> list[Row]:
        self.statements.append(sql)
        return await self._database.look_all_up(sql, *arguments)

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]:
        self.statements.append(sql)
        return await self._database.fetch_all(sql, *arguments)

    async def write(self, sql: str, *arguments: object) -> int:
        self.statements.append(sql)
        return await self._database.write(sql, *arguments)

    async def write_returning(self, sql: str, *arguments: object) -> Row | None:
        self.statements.append(sql)
        return await self._database.write_returning(sql, *arguments)

    def transaction(self) -> AbstractAsyncContextManager[Transactional]:
        self.statements.append("BEGIN")
        return self._database.transaction()

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        await self._database.listen(channel, heard)

    async def close(self) -> None:
        await self._database.close()


async def statements_of(folder: Path, *cases: Case) -> list[list[str]]:
    """What each denial, on a replica of its own, asked of the database."""
    seen = []
    open_to_all = {"namespaces": ["*"], "names": ["*"]}
    async with deployed(folder, allowedWorkloads=open_to_all) as world:
        for case in cases:
            jwt = (await world.signed_in("alice")).access_token
            caller, jwt = await case(world, jwt)
            counting = Counting()
            async with replica(world, through=counting.around) as counted:
                assert verdict(await counted.exchange(caller, jwt)) == DENIED
                seen.append(list(counting.statements))
    return seen


FOREIGN = [
    session_of_another_user,
    with_claims(sub="somebody"),
    session_of_another_client,
    with_claims(client_id="somebody"),
    session_for_another_resource,
    revoked_session,
    session_over_before_its_token,
    session_moved_to_another_owner,
]


async def test_a_foreign_session_costs_the_one_read_that_an_unknown_one_costs(
    tmp_path: Path,
) -> None:
    unknown, *foreign = await statements_of(tmp_path, with_claims(tsid="x" * 43), *FOREIGN)
    assert len(unknown) == 1
    assert unknown[0].startswith("SELECT ")
    assert foreign == [unknown] * len(FOREIGN)


async def test_a_foreign_session_opens_no_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening them takes a fifth of the whole denial, and so tells that the session exists."""
    opened: list[str] = []
    real = Keyring.open

    def counting(self: Keyring, sealed: bytes, *place: str | int) -> bytes:
        opened.append(str(place[0]))
        return real(self, sealed, *place)

    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        caller, foreign = await session_of_another_user(world, alice.access_token)
        monkeypatch.setattr(Keyring, "open", counting)
        assert verdict(await world.exchange(caller, foreign)) == DENIED
    assert opened == []


@pytest.mark.parametrize(
    "case",
    [another_name, another_namespace, with_claims(aud=f"{NOTES}/"), with_claims(iss="https://x")],
)
async def test_whoever_does_not_own_the_resource_reaches_no_session(
    tmp_path: Path, case: Case
) -> None:
    [statements] = await statements_of(tmp_path, case)
    assert statements == []
