"""A sign-in of a user whom an operator blocks, before or at the same moment: nothing is stored."""

import asyncio

import pytest
from msgspec.structs import replace

from authserver.handles import hash_of, new_handle
from authserver.storage.contract import Database
from authserver.storage.records import Code
from authserver.storage.users import UserBlocked, set_blocked
from tests.support.storage_fixtures import NOW, Store, grant, new_session

KNOWN = pytest.mark.parametrize("known", [True, False])


async def sign_in_again(store: Store, user_id: str, *, known: bool) -> None:
    """As one who is signed in at the browser, or who comes back from the upstream."""
    session = replace(new_session(), user_id=user_id if known else new_handle())
    await store.sign_ins.complete(
        [] if known else [grant()],
        session,
        hash_of(new_handle()),
        Code(session.tsid, "client", "https://c/cb", "challenge", session.resource),
        code_expires_at=NOW + 60,
        user_known=known,
    )


async def sessions(store: Store) -> int:
    return len(await store.database.fetch_all("SELECT tsid FROM sessions"))


@KNOWN
async def test_a_blocked_user_gets_no_session(database: Database, known: bool) -> None:
    store = Store(database)
    session, _ = await store.sign_in()
    async with database.transaction() as transaction:
        assert await set_blocked(transaction, session.user_id, NOW)
    with pytest.raises(UserBlocked):
        await sign_in_again(store, session.user_id, known=known)
    assert await sessions(store) == 1


@KNOWN
async def test_a_block_that_is_under_way_is_waited_for(
    database: Database, other: Database, known: bool
) -> None:
    store = Store(other)
    session, _ = await store.sign_in()
    async with database.transaction() as transaction:
        assert await set_blocked(transaction, session.user_id, NOW)
        signing_in = asyncio.create_task(sign_in_again(store, session.user_id, known=known))
        await asyncio.sleep(0.2)
        assert not signing_in.done()
    with pytest.raises(UserBlocked):
        await signing_in
    assert await sessions(store) == 1
