"""A connection as its row: which columns, and its tokens sealed to that row and generation."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from authserver.storage.contract import Row
from authserver.storage.keyring import DecryptionFailed, Keyring
from authserver.storage.records import (
    ClientRegistration,
    Connection,
    ConnectionKey,
    Grant,
    UpstreamTokens,
)
from chassis.logs import Log
from chassis.spiffe_id import Workload

_log = Log("storage")

VALUES = (
    "generation, upstream_issuer, upstream_subject, asked_scope, sealed_tokens, dead,"
    " refresh_claim, refresh_claimed_at, first_claimed_at, authorization_server,"
    " registered_client_id, refused_since, refusals, rejected"
)
AT_KEY = "user_id = ? AND owner_namespace = ? AND owner_name = ? AND upstream = ?"
_AT_EXCHANGED = (
    "user_id = ? AND owner_namespace = ? AND owner_name = ? AND made_of = ? AND upstream = ?"
    " AND variant = ?"
)
EXCHANGED_COLUMNS = f"user_id, owner_namespace, owner_name, made_of, upstream, variant, {VALUES}"
COLUMNS = f"user_id, owner_namespace, owner_name, upstream, {VALUES}"

_tokens_of = msgspec.json.Decoder(UpstreamTokens).decode


class SealedConnections:
    """Connections to and from their rows, under a keyring."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, connection: Connection) -> bytes:
        """The connection's tokens, for its row's `sealed_tokens`."""
        context = _context(connection.key, connection.generation, connection.registration)
        return self._keyring.seal(msgspec.json.encode(connection.tokens), *context)

    def open(self, row: Row) -> Connection:
        """The connection in a row of `COLUMNS`. Raises DecryptionFailed."""
        user_id, namespace, name, upstream, *values = row
        return self.open_at(ConnectionKey(user_id, Workload(namespace, name), upstream), values)

    def open_exchanged(self, row: Row) -> Connection:
        """The exchanged tokens in a row of `EXCHANGED_COLUMNS`. Raises DecryptionFailed."""
        user_id, namespace, name, made_of, upstream, variant, *values = row
        owner = Workload(namespace, name)
        return self.open_at(ConnectionKey(user_id, owner, upstream, made_of, variant), values)

    def open_at(self, key: ConnectionKey, values: Iterable[Any]) -> Connection:
        """The connection at `key`, whose row holds these `VALUES` in this order.

        Raises DecryptionFailed.
        """
        (
            generation, issuer, subject, asked_scope, sealed, dead, claim, claimed_at, first,
            server, client_id, refused_since, refusals, rejected,
        ) = values  # fmt: skip
        registration = registration_of(server, client_id)
        try:
            tokens = self._keyring.open(sealed, *_context(key, generation, registration))
        except DecryptionFailed:
            if registration is None or key.made_of:
                raise
            # Sealed before there were registrations, or since by a replica of that version.
            tokens = self._keyring.open(sealed, *_context(key, generation, None))
        return Connection(
            key, generation, issuer, subject, _tokens_of(tokens), asked_scope,
            bool(dead), claim, claimed_at, first, registration, refused_since, refusals,
            bool(rejected),
        )  # fmt: skip

    def open_if_whole(self, row: Row) -> Connection | None:
        """None where it does not open: what is to be replaced or deleted may be lost already."""
        return self._if_whole(self.open, row)

    def open_exchanged_if_whole(self, row: Row) -> Connection | None:
        """The same of a row of `EXCHANGED_COLUMNS`."""
        return self._if_whole(self.open_exchanged, row)

    def _if_whole(self, opened: Callable[[Row], Connection], row: Row) -> Connection | None:
        try:
            return opened(row)
        except DecryptionFailed:
            _log.error("sealed_record_unreadable")
            return None


def at(key: ConnectionKey) -> tuple[str, ...]:
    """The columns that find a connection, or tokens that an exchange made."""
    holder = (key.user_id, key.owner.namespace, key.owner.name)
    return (
        (*holder, key.made_of, key.upstream, key.variant)
        if key.made_of
        else (*holder, key.upstream)
    )


def place_of(key: ConnectionKey) -> tuple[str, str]:
    """The table that holds a key's row, and the condition on it; `at` has the values."""
    return ("exchanged_tokens", _AT_EXCHANGED) if key.made_of else ("connections", AT_KEY)


def is_another_grant(replaced: Connection, by: Connection | Grant) -> bool:
    """Whether tokens that were replaced may be revoked and leave their successors alone.

    They are of another account or another client of ours. At many providers a second sign-in of
    one account belongs to the grant of the first.
    """
    subjects = {replaced.upstream_subject, by.upstream_subject}
    registrations = {replaced.registration, by.registration} - {None}
    return ("" not in subjects and len(subjects) == 2) or len(registrations) == 2


def is_same_account(row: Row, grant: Grant) -> bool:
    """Whether the tokens in a row are of the upstream account that a grant is of."""
    return (row["upstream_issuer"], row["upstream_subject"]) == (
        grant.upstream_issuer,
        grant.upstream_subject,
    )


def carry_refresh_token(before: Connection | None, grant: Grant) -> UpstreamTokens:
    """A grant's tokens, with the refresh token of the connection before where it brought none."""
    if (
        grant.tokens.refresh_token is None
        and before is not None
        and not before.dead
        and before.first_claimed_at is None
        and before.refresh_claimed_at is None
        and before.refusals == 0
        and before.registration in (None, grant.registration)
        and before.upstream_issuer == grant.upstream_issuer
        and before.upstream_subject == grant.upstream_subject
    ):
        return replace(
            grant.tokens,
            refresh_token=before.tokens.refresh_token,
            refresh_expires_at=before.tokens.refresh_expires_at,
        )
    return grant.tokens


def registration_of(
    authorization_server: str | None, client_id: str | None
) -> ClientRegistration | None:
    """The registration in a row's two columns; None in a row stored before there were any."""
    if authorization_server is None or client_id is None:
        return None
    return ClientRegistration(authorization_server, client_id)


def associated_data(
    user_id: str,
    owner_namespace: str,
    owner_name: str,
    upstream: str,
    generation: int,
    registration: ClientRegistration | None,
) -> tuple[str | int, ...]:
    """Where sealed tokens belong: to one generation of one connection of one registration.

    Without a registration it is the context of rows that were stored before; with one, its
    version 2.
    """
    place = (user_id, owner_namespace, owner_name, upstream, generation)
    if registration is None:
        return ("connections", "sealed_tokens", *place)
    registered = (registration.authorization_server, registration.client_id)
    return ("connections", "sealed_tokens", "version 2", *place, *registered)


def exchanged_data(
    user_id: str,
    owner_namespace: str,
    owner_name: str,
    made_of: str,
    upstream: str,
    variant: str,
    generation: int,
    registration: ClientRegistration | None,
) -> tuple[str | int, ...]:
    """Where sealed tokens of an exchange belong: to one generation of one variant."""
    place = (user_id, owner_namespace, owner_name, made_of, upstream, variant, generation)
    registered = (registration.authorization_server, registration.client_id) if registration else ()
    return ("exchanged_tokens", "sealed_tokens", *place, *registered)


def _context(
    key: ConnectionKey, generation: int, registration: ClientRegistration | None
) -> tuple[str | int, ...]:
    holder = (key.user_id, key.owner.namespace, key.owner.name)
    if key.made_of:
        return exchanged_data(
            *holder, key.made_of, key.upstream, key.variant, generation, registration
        )
    return associated_data(*holder, key.upstream, generation, registration)
