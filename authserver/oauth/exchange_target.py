"""What an exchange asks a provider for (RFC 8693 section 2.1), and what is narrower than that.

Pure values. An operator configures one target for each exchanged upstream; a server may ask for a
part of it and never for more.
"""

import hashlib
import json
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from authserver.values import Value

ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a URN
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"

# Servers ask for the same few tokens with every exchange.
_REMEMBERED: Final = 1_024


class WiderAudience(Exception):
    """The audience is none of the target's audiences and resources."""


class WiderScope(Exception):
    """One of the scopes is none of the target's."""


class ExchangeTarget(Value, frozen=True):
    """The members of a token request that say for whom and for what the new token is.

    `audiences` are names that the provider knows, `resources` are URLs (RFC 8707), `scopes` the
    scopes asked for, `token_type` is the `requested_token_type`. Empty members are not sent.
    """

    audiences: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    token_type: str = ACCESS_TOKEN_TYPE

    @lru_cache(maxsize=_REMEMBERED)  # noqa: B019 - bounded, and of values
    def narrowed(self, audience: str | None, scopes: tuple[str, ...]) -> "ExchangeTarget":
        """The part of this target for one audience or resource, and for these scopes alone.

        None and no scopes leave that side as it is. Values are compared letter for letter. Raises
        WiderAudience or WiderScope, in this order.
        """
        part = self
        if audience is not None:
            if audience not in self.audiences and audience not in self.resources:
                raise WiderAudience
            part = replace(
                part,
                audiences=tuple(one for one in self.audiences if one == audience),
                resources=tuple(one for one in self.resources if one == audience),
            )
        if scopes:
            if not set(scopes) <= set(self.scopes):
                raise WiderScope
            part = replace(part, scopes=tuple(one for one in self.scopes if one in scopes))
        return part

    @lru_cache(maxsize=_REMEMBERED)  # noqa: B019 - bounded, and of values
    def digest(self, *context: str) -> str:
        """A name for what is asked for, whatever the order: 64 characters of hexadecimal.

        Different targets have different names, so nothing made for one is found under another.
        """
        parts = [sorted(one) for one in (self.audiences, self.resources, self.scopes)]
        text = json.dumps([*parts, self.token_type, *context])
        return hashlib.sha256(text.encode()).hexdigest()

    def beyond(self, granted: Collection[str], always: Collection[str]) -> set[str]:
        """Scopes of an answer that were not asked for; `always` are added to every token.

        Where no scope is asked for, the provider chooses them all.
        """
        return set(granted) - {*self.scopes, *always} if self.scopes else set()
