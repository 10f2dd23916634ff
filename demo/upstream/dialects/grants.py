"""What a provider of the table remembers: codes, grants and the tokens that stem from them."""

import base64
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from chassis.clock import Clock
from demo.upstream.dialects.behaviour import Answer, Behaviour, Issued, Person


class Refused(Exception):
    """A request that is turned down, with its answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass
class Grant:
    """One sign-in of a person. `spent` maps refresh tokens that were used to the time of it."""

    person: Person
    scopes: tuple[str, ...]
    nonce: str | None
    refresh_token: str | None = None
    used_at: float = 0
    access_tokens: dict[str, float | None] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class _Code:
    grant: Grant
    challenge: str | None
    offline: bool


class ProviderGrants:
    """Synchronous, hence atomic among the requests of one event loop."""

    def __init__(self, behaviour: Behaviour, now: Clock, prefix: str) -> None:
        self._behaviour, self._now, self._prefix = behaviour, now, prefix
        self._numbers = itertools.count(1)
        self._codes: dict[str, _Code] = {}
        self.grants: list[Grant] = []
        self.presented: list[str] = []

    def code(self, person: Person, query: Mapping[str, str]) -> str:
        """A code for an authorization request that the person allowed."""
        one = self._behaviour
        asked = query.get(one.scope_parameter, "")
        scopes = tuple(part for part in asked.split(one.scope_separator) if part)
        offline = one.gives_refresh_token and all(
            query.get(name) == text for name, text in one.offline.items()
        )
        if one.offline_scope:
            offline = offline and one.offline_scope in scopes
        code = self._new("code")
        grant = Grant(person, scopes, query.get("nonce"))
        self._codes[code] = _Code(grant, query.get("code_challenge"), offline)
        return code

    def redeem(self, code: str, verifier: str) -> tuple[Grant, Issued]:
        """The tokens of a code, once. Raises Refused."""
        found = self._codes.pop(code, None)
        if found is None:
            raise Refused(self._behaviour.refused)
        if self._behaviour.checks_pkce and found.challenge not in (None, _s256(verifier)):
            raise Refused(self._behaviour.refused)
        if found.offline:
            found.grant.refresh_token = self._new("refresh")
        self.grants.append(found.grant)
        return found.grant, self._issued(found.grant, found.grant.refresh_token)

    def refresh(self, token: str) -> tuple[Grant, Issued]:
        """The tokens that a refresh token gives. Raises Refused."""
        self.presented.append(token)
        one, now = self._behaviour, self._now()
        grant = self._holding(token)
        if grant is None or grant.ended or now - grant.used_at > one.idle:
            raise Refused(one.refused)
        if token in grant.spent and now - grant.spent[token] >= one.spent_lives:
            grant.ended = one.reuse_ends_grant
            raise Refused(one.refused)
        if one.ends_access_token:
            grant.access_tokens.clear()
        brought = None
        if one.rotates:
            grant.spent.setdefault(token, now)
            brought = grant.refresh_token = self._new("refresh")
        return grant, self._issued(grant, brought)

    def revoke(self, token: str) -> bool:
        """End what a revocation of the token ends; False where the provider does not take it."""
        one = self._behaviour
        takes_refresh = one.revokes in ("refresh", "refresh or access")
        takes_access = one.revokes != "refresh"
        grant = (takes_refresh and self._holding(token)) or None
        grant = grant or (takes_access and self._lending(token)) or None
        if grant is None:
            return False
        if one.revocation_ends == "token":
            self._end_token(grant, token)
        else:
            whole = one.revocation_ends == "person"
            self.end(grant.person if whole else grant)
        return True

    def end(self, what: Grant | Person) -> None:
        """End a grant, or all that a person gave: as they do in the provider's own settings."""
        for grant in self.grants:
            if grant is what or grant.person == what:
                grant.ended = True

    def forget(self, grant: Grant) -> None:
        """Know nothing of its tokens any more, as after a restore of the provider's own storage."""
        self.grants.remove(grant)

    def bearer(self, token: str) -> Grant | None:
        """The grant behind an access token that is valid now."""
        grant = self._lending(token)
        if grant is None or grant.ended:
            return None
        until = grant.access_tokens[token]
        return grant if until is None or self._now() < until else None

    def _issued(self, grant: Grant, refresh_token: str | None) -> Issued:
        grant.used_at = self._now()
        access_token, lifetime = self._new("access"), self._behaviour.lifetime
        until = None if lifetime is None else grant.used_at + lifetime
        grant.access_tokens[access_token] = until
        return Issued(grant.person, access_token, refresh_token, grant.scopes)

    def _end_token(self, grant: Grant, token: str) -> None:
        grant.access_tokens.pop(token, None)
        grant.refresh_token = None if token == grant.refresh_token else grant.refresh_token

    def _holding(self, token: str) -> Grant | None:
        return next(
            (one for one in self.grants if token == one.refresh_token or token in one.spent), None
        )

    def _lending(self, token: str) -> Grant | None:
        return next((one for one in self.grants if token in one.access_tokens), None)

    def _new(self, kind: str) -> str:
        return f"{self._prefix}-{kind}-{next(self._numbers)}"


def _s256(verifier: str) -> str:
    """PKCE S256 (RFC 7636 section 4.6)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
