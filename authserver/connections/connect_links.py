"""Links by which a user connects an upstream account to a session: sealed values, nothing stored.

A link opens only here, for one session and one upstream, for ten minutes. It proves nothing of who
has it: the page behind it attaches an account for the session's own user alone.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from typing import Final

import msgspec

from authserver.handles import hash_of
from authserver.storage.keyring import DecryptionFailed, Keyring
from authserver.storage.used_connect_links import UsedConnectLinks
from authserver.values import Hidden, Value
from chassis.clock import Clock

LINK_SECONDS: Final = 600
# For so long the same link is given again. It then still has as much time left.
_SAME_SECONDS: Final = 300
_MAX_REMEMBERED: Final = 10_000
_MAX_LENGTH: Final = 2000
_PLACE: Final = ("connect_url", "version 1")


class LinkRefused(Exception):
    """The text is no link of ours, or its time is over."""


class ConnectLink(Value, frozen=True):
    """What a link says; `expires_at` in seconds since the Unix epoch."""

    tsid: Hidden[str]
    upstream: str
    expires_at: int


class _Given(Value, frozen=True):
    text: Hidden[str]
    again_until: float


_decode = msgspec.json.Decoder(ConnectLink).decode


class ConnectLinks:
    """Makes and opens links; remembers those it gave lately, in this process's memory."""

    def __init__(self, issuer: str, keyring: Keyring, used: UsedConnectLinks, clock: Clock) -> None:
        self._issuer, self._keyring, self._used, self._clock = issuer, keyring, used, clock
        self._given: OrderedDict[tuple[str, str], _Given] = OrderedDict()

    async def url_of(self, tsid: str, upstream: str) -> str:
        """The URL for one session and upstream: for five minutes the same, until it was used."""
        key, now = (tsid, upstream), self._clock()
        given = self._given.get(key)
        if (
            given is None
            or not 0 < given.again_until - now <= _SAME_SECONDS
            or await self._is_used(given.text)
        ):
            given = _Given(self._sealed(tsid, upstream, int(now)), now + _SAME_SECONDS)
            self._given[key] = given
            if len(self._given) > _MAX_REMEMBERED:
                self._given.popitem(last=False)
        return self.url(given.text)

    def url(self, text: str) -> str:
        """The address of a link's page."""
        return f"{self._issuer}/connect/{text}"

    def read(self, text: str) -> ConnectLink:
        """What a link says that we made, even if its time is over. Raises LinkRefused."""
        if len(text) > _MAX_LENGTH or not text.isascii():
            raise LinkRefused
        try:
            sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            # One spelling for each value: the hash of the text stands for the link.
            if _encoded(sealed) != text:
                raise LinkRefused
            return _decode(self._keyring.open(sealed, *_PLACE))
        except (binascii.Error, DecryptionFailed, msgspec.DecodeError):
            raise LinkRefused from None

    async def open(self, text: str) -> ConnectLink:
        """What a link says that may be used now. Raises LinkRefused."""
        link = self.read(text)
        if self._clock() >= link.expires_at or await self._is_used(text):
            raise LinkRefused
        return link

    async def _is_used(self, text: str) -> bool:
        return await self._used.has(hash_of(text))

    def _sealed(self, tsid: str, upstream: str, now: int) -> str:
        link = ConnectLink(tsid, upstream, now + LINK_SECONDS)
        return _encoded(self._keyring.seal(msgspec.json.encode(link), *_PLACE))


def _encoded(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).rstrip(b"=").decode()
