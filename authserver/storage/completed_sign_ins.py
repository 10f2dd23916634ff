"""The end of a sign-in: user, connections, session and code are stored together or not at all."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from authserver.storage import accounts, browser_sessions
from authserver.storage.authorization_codes import AuthorizationCodes
from authserver.storage.connections import Connections
from authserver.storage.consents import Given, remember
from authserver.storage.contract import Database, Transactional
from authserver.storage.keyring import Keyring
from authserver.storage.records import Account, Code, Grant, Session
from authserver.storage.sessions import Sessions, lift_required_sign_ins, list_upstreams
from authserver.storage.users import UserBlocked, is_blocked
from authserver.values import Hidden, Value

_NAMED: Final = "SELECT user_id, blocked_at FROM users WHERE upstream_issuer = ? AND subject = ?"


class NewBrowserSession(Value, frozen=True):
    """The browser at which a user has just signed in."""

    handle_hash: Hidden[bytes]
    expires_at: int


class SignIns:
    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        sessions: Sessions,
        codes: AuthorizationCodes,
        connections: Connections,
    ) -> None:
        self._database, self._keyring = database, keyring
        self._sessions, self._codes, self._connections = sessions, codes, connections

    async def complete(
        self,
        grants: Sequence[Grant],
        session: Session,
        code_hash: bytes,
        code: Code,
        *,
        code_expires_at: int,
        user_known: bool = False,
        consent: Given | None = None,
        browser: NewBrowserSession | None = None,
    ) -> Session:
        """Store a whole sign-in in one transaction; the session as stored.

        With `user_known` the user is `session.user_id`. Otherwise the first grant identifies the
        user, and `session.user_id` is the id that one gets who is new here. Raises UserBlocked.
        """
        async with self._database.transaction() as transaction:
            if not user_known:
                user_id = await _known_or_new(transaction, grants[0], session)
                session = replace(session, user_id=user_id)
            elif await is_blocked(transaction, session.user_id):
                raise UserBlocked
            if grants:
                await list_upstreams(transaction, session.user_id, session.owner)
            for grant in grants:
                await self._connections.put(
                    transaction, session.user_id, session.owner, grant, session.owner_uid
                )
            async with transaction.together() as writes:
                if not user_known and grants[0].account:
                    account = Account(grants[0].account, grants[0].upstream)
                    await accounts.put(writes, self._keyring, session.user_id, account)
                if browser is not None:
                    await browser_sessions.add(
                        writes,
                        browser.handle_hash,
                        session.user_id,
                        now=session.created_at,
                        expires_at=browser.expires_at,
                    )
                if consent is not None:
                    await remember(writes, session.user_id, consent)
                await lift_required_sign_ins(writes, session.user_id, session.owner)
                await self._sessions.add(writes, session)
                await self._codes.add(writes, code_hash, code, expires_at=code_expires_at)
        return session


async def _known_or_new(transaction: Transactional, identity: Grant, session: Session) -> str:
    """The id of the user whom the grant identifies. Raises UserBlocked."""
    named = (identity.upstream_issuer, identity.upstream_subject)
    # Locked, so that neither another sign-in of this user nor a purge comes in between.
    row = await transaction.fetch_locked(_NAMED, *named)
    if row is None:
        await transaction.execute(
            "INSERT INTO users (user_id, upstream_issuer, subject, created_at)"
            " VALUES (?, ?, ?, ?) ON CONFLICT (upstream_issuer, subject) DO NOTHING",
            session.user_id,
            *named,
            session.created_at,
        )
        row = await transaction.fetch_locked(_NAMED, *named)
    assert row is not None
    if row["blocked_at"] is not None:
        raise UserBlocked
    return str(row["user_id"])
