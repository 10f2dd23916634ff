"""What exchange answers say of each upstream's APIs: JSON that is made once and sent often."""

from collections.abc import Iterable

import msgspec

from authserver.config.exchanged_upstreams import ConfiguredUpstream

_NONE = msgspec.Raw(b"[]")


class AnsweredApis:
    """The APIs by upstream; a reload puts others in force."""

    def __init__(self, upstreams: Iterable[ConfiguredUpstream]) -> None:
        """Reads the authorities of the upstreams. Raises OSError or ValueError."""
        self._apis = {
            one.name: msgspec.Raw(msgspec.json.encode(one.answered_apis())) for one in upstreams
        }

    def replace(self, other: "AnsweredApis") -> None:
        """Put the APIs of `other` in force, whole."""
        self._apis = other._apis

    def of(self, upstream: str) -> msgspec.Raw:
        """The JSON list of an upstream's APIs; an empty one where none is configured."""
        return self._apis.get(upstream, _NONE)
