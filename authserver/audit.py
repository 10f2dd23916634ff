"""The audit trail: one event per release, denial, sign-in, consent and ending.

Every event is a log line with `event: audit`, and names its `action` and `outcome`. Users,
sessions and tokens appear as pseudonyms only: keyed hashes whose key outlives every rotation of
keys, so that events of one user stay together and a log gives nobody a handle. The level that
the process logs at does not touch these events.
"""

import contextlib
import hmac
import logging
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Final, Protocol

import msgspec

from authserver.values import Value
from chassis.logs import Log, LogWriteFailed

_log = Log("audit")

_MAX_KNOWN: Final = 10_000


class Action(StrEnum):
    """What an event is about."""

    RELEASE = "release"
    SIGN_IN = "sign_in"
    CONSENT = "consent"
    UPSTREAM_LOGIN = "upstream_login"
    REGISTRATION = "registration"
    TOKEN_GRANT = "token_grant"  # noqa: S105 - a name
    SIGN_OUT = "sign_out"
    REVOCATION = "revocation"
    SESSION_END = "session_end"
    CONNECT = "connect"
    CONNECTION_PURGE = "connection_purge"
    REVOCATION_POLL = "revocation_poll"
    OPERATOR_COMMAND = "operator_command"


class Outcome(StrEnum):
    """How it ended: done, refused by us or by the person, or failed for another reason."""

    SUCCESS = "success"
    REFUSED = "refused"
    FAILED = "failed"


class Subject(Value, frozen=True):
    """Whom an event is about, as storage knows them; empty where it is not known.

    `user_id` and `tsid` are written as pseudonyms, everything else as it is.
    """

    user_id: str = ""
    client_id: str = ""
    tsid: str = ""
    resource: str = ""
    upstream: str = ""


class SessionLike(Protocol):
    """A session, as far as an event names it."""

    @property
    def tsid(self) -> str: ...

    @property
    def user_id(self) -> str: ...

    @property
    def client_id(self) -> str: ...

    @property
    def resource(self) -> str: ...


def subject_of(session: SessionLike) -> Subject:
    """The subject of an event about a session."""
    return Subject(session.user_id, session.client_id, session.tsid, session.resource)


class AuditRecord(msgspec.Struct):
    """What the event of one request says; the listener fills it while the checks go on.

    `jti`, `user` and `session` are pseudonyms. `audience` and `scope` are those of a token that an
    exchange makes, with spaces between. A field that is empty is not written.
    """

    action: Action = Action.RELEASE
    spiffe_id: str = ""
    certificate_serial: str = ""
    certificate_sha256: str = ""
    jti: str = ""
    user: str = ""
    client: str = ""
    session: str = ""
    resource: str = ""
    upstream: str = ""
    audience: str = ""
    scope: str = ""


_RECORD_FIELDS: Final = AuditRecord.__struct_fields__
_record_values = attrgetter(*_RECORD_FIELDS)


class Audit:
    """Writes the trail; `key` is 32 secret bytes of this deployment, the same on all replicas."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # The same session comes back every minute or so, from each of its sidecars.
        self.pseudonym = lru_cache(_MAX_KNOWN)(self._pseudonym)
        self.handle = lru_cache(_MAX_KNOWN)(self._handle)

    def _pseudonym(self, kind: str, identifier: str) -> str:
        """What the trail calls a `user`, `session` or `jti`: 96 bits of HMAC-SHA-256, in hex."""
        return hmac.digest(self._key, f"{kind} {identifier}".encode(), "sha256")[:12].hex()

    def _handle(self, kind: str, owner: str, *parts: str) -> str:
        """The handle of a session or connection for one owner; another owner's is another one."""
        text = "\0".join((f"{kind} handle", owner, *parts))
        return hmac.digest(self._key, text.encode(), "sha256")[:18].hex()

    def release(self, record: AuditRecord, *, refreshed: bool) -> None:
        """Raises LogWriteFailed if the event was not written: then release nothing."""
        _log.write_or_raise(
            logging.INFO, "audit", outcome="success", decision="release",
            refreshed=refreshed, **_written(record),
        )  # fmt: skip

    def denial(self, record: AuditRecord, *, reason: str, error: str) -> None:
        """A denial stands whether or not it could be written."""
        with contextlib.suppress(LogWriteFailed):
            _log.write_or_raise(
                logging.WARNING, "audit", outcome="refused", decision="deny",
                reason=reason, error=error, **_written(record),
            )  # fmt: skip

    def sign_in(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A sign-in ended: a code was given to the client, or the client was refused."""
        self._write(Action.SIGN_IN, subject, outcome, reason)

    def consent(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """The user allowed (SUCCESS) or declined (REFUSED); `reason` says `remembered` where no
        page was shown.
        """
        self._write(Action.CONSENT, subject, outcome, reason)

    def upstream_login(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """An upstream answered a login: with tokens, with a refusal, or with what we cannot use."""
        self._write(Action.UPSTREAM_LOGIN, subject, outcome, reason)

    def connect(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A user connected an upstream account to a session by a link, or did not."""
        self._write(Action.CONNECT, subject, outcome, reason)

    def registration(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A client registered itself, or was not let in."""
        self._write(Action.REGISTRATION, subject, outcome, reason)

    def token_grant(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A client redeemed a code or a refresh token, or was refused."""
        self._write(Action.TOKEN_GRANT, subject, outcome, reason)

    def sign_out(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A user ended a browser login, and what goes with it."""
        self._write(Action.SIGN_OUT, subject, outcome, reason)

    def revocation(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A client revoked a token (RFC 7009)."""
        self._write(Action.REVOCATION, subject, outcome, reason)

    def session_end(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A session ended, for whatever reason."""
        self._write(Action.SESSION_END, subject, outcome, reason)

    def connection_purge(self, subject: Subject, outcome: Outcome, reason: str = "") -> None:
        """A connection was deleted and not revoked at its upstream: its grant may live on."""
        self._write(Action.CONNECTION_PURGE, subject, outcome, reason)

    def operator_command(self, fields: Mapping[str, str | int]) -> None:
        """An operator's command did something. Raises LogWriteFailed if it was not written."""
        _log.write_or_raise(
            logging.WARNING,
            "audit",
            action=Action.OPERATOR_COMMAND.value,
            outcome=Outcome.SUCCESS.value,
            **fields,
        )

    def _write(self, action: Action, subject: Subject, outcome: Outcome, reason: str) -> None:
        known = {
            "user": self.pseudonym("user", subject.user_id) if subject.user_id else "",
            "client": subject.client_id,
            "session": self.pseudonym("session", subject.tsid) if subject.tsid else "",
            "resource": subject.resource,
            "upstream": subject.upstream,
            "reason": reason,
        }
        written = {name: text for name, text in known.items() if text}
        level = logging.INFO if outcome is Outcome.SUCCESS else logging.WARNING
        with contextlib.suppress(LogWriteFailed):
            _log.write_or_raise(
                level, "audit", action=action.value, outcome=outcome.value, **written
            )


def _written(record: AuditRecord) -> dict[str, str]:
    values = zip(_RECORD_FIELDS, _record_values(record), strict=True)
    return {name: value for name, value in values if value}
