"""What exchange answers say of each upstream's APIs: JSON that is made once and sent often."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from authserver.config.base_url_from import BaseUrlFrom
from authserver.config.exchanged_upstreams import ConfiguredUpstream
from authserver.upstream.account_origins import Origins

_ACCOUNTS: Final = 256


class ApisOfAccount(NamedTuple):
    """The APIs of one account, and those whose base URL we do not know; a JSON list each.

    `without_base_url` is None where there are none.
    """

    apis: msgspec.Raw
    without_base_url: msgspec.Raw | None = None


_NONE: Final = ApisOfAccount(msgspec.Raw(b"[]"))


class _UpstreamApis:
    """The APIs of an upstream. Answers of the last accounts are kept."""

    def __init__(self, upstream: ConfiguredUpstream) -> None:
        """Reads the authorities of the upstream. Raises OSError or ValueError."""
        self._apis: list[tuple[dict[str, Any], BaseUrlFrom | None]] = [
            (answered, api.base_url_from)
            for answered, api in zip(upstream.answered_apis(), upstream.apis, strict=True)
        ]
        self.of = lru_cache(maxsize=_ACCOUNTS)(self._of)

    def _of(self, origins: Origins) -> ApisOfAccount:
        apis, without = [], []
        for answered, base_url_from in self._apis:
            if base_url_from is None:
                apis.append(answered)
            # Against the patterns of now: what was sealed under others is not called.
            elif (base_url := base_url_from.base_url(origins)) is not None:
                apis.append(answered | {"base_url": base_url})
            else:
                without.append({name: answered[name] for name in ("name", "default")})
        return ApisOfAccount(_json(apis), _json(without) if without else None)


class AnsweredApis:
    """The APIs by upstream; a reload puts others in force."""

    def __init__(self, upstreams: Iterable[ConfiguredUpstream]) -> None:
        """Reads the authorities of the upstreams. Raises OSError or ValueError."""
        self._apis = {one.name: _UpstreamApis(one) for one in upstreams}

    def replace(self, other: "AnsweredApis") -> None:
        """Put the APIs of `other` in force, whole."""
        self._apis = other._apis

    def of(self, upstream: str, origins: Origins) -> ApisOfAccount:
        """The APIs of an account at an upstream, whose token answer said `origins`."""
        apis = self._apis.get(upstream)
        return _NONE if apis is None else apis.of(origins)


def _json(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
