"""Where an account's APIs are, as a token answer says it (`instance_url` and the like)."""

from collections.abc import Mapping
from typing import Any

from authserver.config.base_url_from import is_among, origin_of
from authserver.values import Value
from chassis.logs import Log

_log = Log("account_origins")

# Each as (member of the token answer, `https://HOST`).
Origins = tuple[tuple[str, str], ...]


class AccountHosts(Value, frozen=True):
    """`members` of an upstream's token answers that say where APIs are, with patterns of hosts."""

    upstream: str = ""
    members: Mapping[str, tuple[str, ...]] = {}

    def origins(self, body: Mapping[str, Any], previous: Origins) -> Origins:
        """The origins that a token answer says, of hosts that are believed.

        A member that is absent or null keeps what a `previous` answer said. One that is not to be
        believed drops that too: the new token is for another place than the one we know.
        """
        origins = dict(previous)
        for member, patterns in self.members.items():
            if body.get(member) is None:
                continue
            origins.pop(member, None)
            origin = origin_of(body[member])
            if origin is not None and is_among(origin, patterns):
                origins[member] = origin
                continue
            reason = "not_an_origin" if origin is None else "host_not_allowed"
            _log.warning("base_url_refused", upstream=self.upstream, member=member, reason=reason)
        return tuple((member, origins[member]) for member in self.members if member in origins)
