"""Two openings of one database file, as two processes have them, and a sign-in to put into it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authserver.handles import hash_of
from authserver.storage.authorization_codes import AuthorizationCodes
from authserver.storage.claim_rows import ClaimRows
from authserver.storage.completed_sign_ins import SignIns
from authserver.storage.connections import Connections
from authserver.storage.contract import Database
from authserver.storage.engines.open import open_database
from authserver.storage.expiry import Expiry
from authserver.storage.keyring import Keyring
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.storage.records import Code, ConnectionKey, Grant, Session, UpstreamTokens
from authserver.storage.refresh_tokens import NewRefreshToken, RefreshTokens
from authserver.storage.sessions import Sessions
from chassis.spiffe_id import Workload

NOW = 1_800_000_000
OWNER, NEIGHBOUR = Workload("mcp-servers", "notes"), Workload("mcp-servers", "tasks")
KEY = ("k1", b"\1" * 32)


@dataclass
class Store:
    """One process's view of the database."""

    database: Database
    keyring: Keyring = field(default_factory=lambda: Keyring([KEY]))

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.database)
        self.codes = AuthorizationCodes(self.database)
        self.refresh_tokens = RefreshTokens(self.database, self.keyring)
        self.connections = Connections(self.database, self.keyring)
        self.claims = ClaimRows(self.database, self.keyring)
        self.transactions = PendingSignIns(self.database, self.keyring)
        self.sign_ins = SignIns(
            self.database, self.keyring, self.sessions, self.codes, self.connections
        )
        self.sweeper = Expiry(self.database)

    async def sign_in(self, name: str = "s1", **changes: Any) -> Session:
        """A session `name` with the code `code-<name>`, and one connection."""
        about: dict[str, Any] = {
            "user": "u1",
            "owner": OWNER,
            "subject": "alice",
            "refresh_token": "upstream refresh canary",
            "expires_at": NOW + 60,
        } | changes
        session = Session(
            name, about["user"], "client", "https://r", about["owner"], "mcp", NOW, NOW + 60
        )
        code = Code(name, "client", "https://c/cb", "challenge", "https://r")
        await self.sign_ins.complete(
            [grant(about["subject"], about["refresh_token"])],
            session,
            hash_of(f"code-{name}"),
            code,
            code_expires_at=about["expires_at"],
        )
        found = await self.sessions.get(name)
        assert found is not None
        return found

    async def redeemed(self, name: str = "s1", **changes: Any) -> Session:
        """A session whose code was redeemed for the refresh token `rt-<name>`."""
        await self.sign_in(name, **changes)
        session = await self.codes.redeem(
            hash_of(f"code-{name}"),
            now=NOW,
            session_expires_at=NOW + 1000,
            refresh_token=refresh_token(f"rt-{name}"),
        )
        assert session is not None
        return session


@asynccontextmanager
async def stores(folder: Path) -> AsyncIterator[tuple[Store, Store]]:
    url = f"sqlite://{folder}/tokenward.db"
    one, other = await open_database(url), await open_database(url)
    try:
        yield Store(one), Store(other)
    finally:
        await one.close()
        await other.close()


def grant(subject: str = "alice", refresh_token: str | None = "upstream refresh canary") -> Grant:
    tokens = UpstreamTokens("upstream access canary", refresh_token, "repo", NOW, NOW + 100)
    return Grant("acme", "https://acme", subject, tokens)


def key(user: str = "u1", owner: Workload = OWNER) -> ConnectionKey:
    return ConnectionKey(user, owner, "acme")


def refresh_token(token: str, expires_at: int = NOW + 1000) -> NewRefreshToken:
    return NewRefreshToken(token, hash_of(token), expires_at)
