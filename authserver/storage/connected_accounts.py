"""Connecting an upstream account to a session there already is: all of it is stored, or nothing."""

from collections.abc import Sequence

from authserver.storage import accounts, browser_sessions, used_connect_links
from authserver.storage.completed_sign_ins import NewBrowserSession
from authserver.storage.connections import Connections
from authserver.storage.contract import Database, Transactional
from authserver.storage.keyring import Keyring
from authserver.storage.records import Account, Grant, Session
from authserver.storage.sessions import allow_upstream, lift_required_sign_ins, list_upstreams
from authserver.storage.users import UserBlocked, is_blocked


class LinkIsOver(Exception):
    """The link was used before, its session has ended, or an operator keeps its user out."""


class ConnectedAccounts:
    def __init__(self, database: Database, keyring: Keyring, connections: Connections) -> None:
        self._database, self._keyring, self._connections = database, keyring, connections

    async def connect(
        self,
        session: Session,
        grant: Grant,
        link_hash: bytes,
        *,
        link_expires_at: int,
        now: int,
        exchanged: Sequence[str] = (),
    ) -> None:
        """Use the link up and store what the upstream gave. Raises LinkIsOver.

        The session's user has agreed to this upstream for this session, and to those whose tokens
        are `exchanged` for its own: its list gains them. Other
        sessions use the connection only where their own authorization named the upstream.
        """
        async with self._database.transaction() as transaction:
            await self._check_live(transaction, session, now)
            if not await used_connect_links.use(transaction, link_hash, link_expires_at):
                raise LinkIsOver
            await list_upstreams(transaction, session.user_id, session.owner)
            for upstream in (grant.upstream, *exchanged):
                await allow_upstream(transaction, session.tsid, upstream)
            await self._connections.put(
                transaction, session.user_id, session.owner, grant, session.owner_uid
            )
            await lift_required_sign_ins(transaction, session.user_id, session.owner)

    async def sign_in(
        self, session: Session, grant: Grant, browser: NewBrowserSession, *, now: int
    ) -> None:
        """Store that the session's user has signed in again, at the upstream that names them.

        Raises LinkIsOver.
        """
        async with self._database.transaction() as transaction:
            await self._check_live(transaction, session, now)
            await self._connections.put(
                transaction, session.user_id, session.owner, grant, session.owner_uid
            )
            await self._begin(transaction, session.user_id, grant, browser, now)

    async def recognise(
        self, user_id: str, grant: Grant, browser: NewBrowserSession, *, now: int
    ) -> None:
        """Begin a browser session of a user whom an upstream has named, and store nothing else.

        Raises UserBlocked.
        """
        async with self._database.transaction() as transaction:
            if await is_blocked(transaction, user_id):
                raise UserBlocked
            await self._begin(transaction, user_id, grant, browser, now)

    async def _begin(
        self,
        transaction: Transactional,
        user_id: str,
        grant: Grant,
        browser: NewBrowserSession,
        now: int,
    ) -> None:
        await browser_sessions.add(
            transaction,
            browser.handle_hash,
            user_id,
            now=now,
            expires_at=browser.expires_at,
        )
        if grant.account:
            account = Account(grant.account, grant.upstream)
            await accounts.put(transaction, self._keyring, user_id, account)

    async def _check_live(self, transaction: Transactional, session: Session, now: int) -> None:
        """Lock the user, so that no purge comes in between, and look at the session again."""
        if await is_blocked(transaction, session.user_id):
            raise LinkIsOver
        live = await transaction.fetch_one(
            "SELECT 1 FROM sessions WHERE tsid = ? AND ended_at IS NULL AND expires_at > ?",
            session.tsid,
            now,
        )
        if live is None:
            raise LinkIsOver
