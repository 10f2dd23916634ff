"""What one database keeps, each kind of rows behind verbs of its own."""

from typing import Self

from authserver.storage.account_overview import AccountOverview
from authserver.storage.authorization_codes import AuthorizationCodes
from authserver.storage.browser_sessions import BrowserSessions
from authserver.storage.claim_rows import ClaimRows
from authserver.storage.clients import Clients
from authserver.storage.completed_sign_ins import SignIns
from authserver.storage.connected_accounts import ConnectedAccounts
from authserver.storage.connections import Connections
from authserver.storage.consents import Consents
from authserver.storage.contract import Database
from authserver.storage.exchanged_tokens import ExchangedTokens
from authserver.storage.keyring import Keyring
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.storage.refresh_tokens import RefreshTokens
from authserver.storage.sessions import Sessions
from authserver.storage.upstream_revocations import UpstreamRevocations
from authserver.storage.used_assertions import UsedAssertions
from authserver.storage.used_connect_links import UsedConnectLinks
from authserver.storage.users import Users
from authserver.values import Value


class Stores(Value, frozen=True):
    """All that more than one part of the authserver works with; `registered` are the clients."""

    registered: Clients
    used_assertions: UsedAssertions
    pending_sign_ins: PendingSignIns
    sign_ins: SignIns
    browsers: BrowserSessions
    consents: Consents
    sessions: Sessions
    codes: AuthorizationCodes
    refresh_tokens: RefreshTokens
    connections: Connections
    claims: ClaimRows
    exchanged_tokens: ExchangedTokens
    upstream_revocations: UpstreamRevocations
    used_connect_links: UsedConnectLinks
    connected_accounts: ConnectedAccounts
    users: Users
    overview: AccountOverview

    @classmethod
    def of(cls, database: Database, keyring: Keyring, *, max_pending_sign_ins: int) -> Self:
        sessions, codes = Sessions(database), AuthorizationCodes(database)
        connections = Connections(database, keyring)
        return cls(
            registered=Clients(database),
            used_assertions=UsedAssertions(database),
            pending_sign_ins=PendingSignIns(database, keyring, max_pending=max_pending_sign_ins),
            sign_ins=SignIns(database, keyring, sessions, codes, connections),
            browsers=BrowserSessions(database, keyring),
            consents=Consents(database),
            sessions=sessions,
            codes=codes,
            refresh_tokens=RefreshTokens(database, keyring),
            connections=connections,
            claims=ClaimRows(database, keyring),
            exchanged_tokens=ExchangedTokens(database, keyring),
            upstream_revocations=UpstreamRevocations(database, keyring),
            used_connect_links=UsedConnectLinks(database),
            connected_accounts=ConnectedAccounts(database, keyring, connections),
            users=Users(database),
            overview=AccountOverview(database, keyring),
        )
