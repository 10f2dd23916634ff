"""The end of a sign-in: user, connections, session and code are stored together or not at all."""

from collections.abc import Sequence

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
                if grants[0].account:
                    account = Account(grants[0].account, grants[0].upstream)
                    await accounts.put(transaction, self._keyring, user_id, account)
            if await is_blocked(transaction, session.user_id):
                raise UserBlocked
            if browser is not None:
                await browser_sessions.add(
                    transaction,
                    browser.handle_hash,
                    session.user_id,
                    now=session.created_at,
                    expires_at=browser.expires_at,
                )
            if grants:
                await list_upstreams(transaction, session.user_id, session.owner)
            for grant in grants:
                await self._connections.put(
                    transaction, session.user_id, session.owner, grant, session.owner_uid
                )
            await lift_required_sign_ins(transaction, session.user_id, session.owner)
            if consent is not None:
                await remember(transaction, session.user_id, consent)
            await self._sessions.add(transaction, session)
            await self._codes.add(transaction, code_hash, code, expires_at=code_expires_at)
        return session


async def _known_or_new(transaction: Transactional, identity: Grant, session: Session) -> str:
    await transaction.execute(
        "INSERT INTO users (user_id, upstream_issuer, subject, created_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (upstream_issuer, subject) DO NOTHING",
        session.user_id,
        identity.upstream_issuer,
        identity.upstream_subject,
        session.created_at,
    )
    # Locked, so that neither another sign-in of this user nor a purge comes in between.
    row = await transaction.fetch_locked(
        "SELECT user_id FROM users WHERE upstream_issuer = ? AND subject = ?",
        identity.upstream_issuer,
        identity.upstream_subject,
    )
    assert row is not None
    return str(row["user_id"])
