"""Where a test's database is, and what a sign-in puts into it."""

import asyncio
import os
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from authserver.handles import hash_of, new_handle
from authserver.storage.authorization_codes import AuthorizationCodes
from authserver.storage.claim_rows import ClaimRows
from authserver.storage.completed_sign_ins import SignIns
from authserver.storage.connections import Connections
from authserver.storage.contract import Database
from authserver.storage.engines import postgresql, sqlite
from authserver.storage.engines.open import open_database
from authserver.storage.exchanged_tokens import ExchangedTokens
from authserver.storage.keyring import Keyring
from authserver.storage.records import (
    Code,
    Connection,
    ConnectionKey,
    Grant,
    Session,
    UpstreamTokens,
)
from authserver.storage.refresh_tokens import NewRefreshToken, RefreshTokens
from authserver.storage.sessions import Sessions
from chassis.spiffe_id import Workload

NOW = 1_800_000_000
OWNER = Workload("mcp-servers", "notes")
RESOURCE = "https://notes.example.com/mcp"
KEY = ("k1", b"1" * 32)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    url: str
    password_file: Path | None = None

    @property
    def tables(self) -> str:
        """The statement that names the tables there are."""
        return sqlite.TABLES if self.password_file is None else postgresql.TABLES

    async def open(self) -> Database:
        file = self.password_file
        return await open_database(
            self.url, (lambda: file.read_text().removesuffix("\n")) if file else None
        )


class Store:
    """The verbs over one handle of a database."""

    def __init__(
        self, database: Database, *keys: tuple[str, bytes], keyring: Keyring | None = None
    ) -> None:
        self.database, self.keyring = database, keyring or Keyring(keys or [KEY])
        self.sessions = Sessions(database)
        self.codes = AuthorizationCodes(database)
        self.refresh_tokens = RefreshTokens(database, self.keyring)
        self.connections = Connections(database, self.keyring)
        self.sign_ins = SignIns(database, self.keyring, self.sessions, self.codes, self.connections)
        self.exchanged_tokens = ExchangedTokens(database, self.keyring)
        self.claims = ClaimRows(database, self.keyring)

    async def sign_in(self, *grants: Grant, **changes: object) -> tuple[Session, bytes]:
        """A whole sign-in, up to its code; the session as stored, and the code's hash."""
        code, session = new_handle(), replace(new_session(), **changes)
        await self.sign_ins.complete(
            grants or [grant()],
            session,
            hash_of(code),
            Code(session.tsid, session.client_id, "https://c/cb", "challenge", session.resource),
            code_expires_at=NOW + 60,
        )
        stored = await self.sessions.get(session.tsid)
        assert stored is not None
        return stored, hash_of(code)

    async def connected(self) -> Connection:
        """The connection of a fresh sign-in."""
        session, _ = await self.sign_in(grant(subject=new_handle()))
        found = await self.connections.get(ConnectionKey(session.user_id, OWNER, "acme"))
        assert found is not None
        return found


def new_session() -> Session:
    return Session(new_handle(), new_handle(), "client", RESOURCE, OWNER, "mcp", NOW, NOW + 3600)


def tokens(refresh_token: str | None = "rt-1") -> UpstreamTokens:
    return UpstreamTokens(new_handle(), refresh_token, "openid", NOW, NOW + 3600)


def grant(subject: str = "alice", refresh_token: str | None = "rt-1") -> Grant:
    return Grant("acme", "https://acme.example.com", subject, tokens(refresh_token))


def new_refresh_token(expires_at: int = NOW + 86400) -> NewRefreshToken:
    token = new_handle()
    return NewRefreshToken(token, hash_of(token), expires_at)


async def together(calls: Iterable[Awaitable[_T]]) -> list[_T]:
    return list(await asyncio.gather(*calls))


ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": os.defpath}
