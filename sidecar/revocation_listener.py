"""Follows the authserver's revocation feed: what ended is dropped here within a second or two.

One poll at a time, on one connection. Without the feed nothing is kept longer than the cap allows,
so an outage of the feed is no outage of the sidecar.
"""

import asyncio
from collections.abc import Callable, Container
from typing import Final, Protocol
from urllib.parse import urlencode

from chassis.clock import Clock
from chassis.http1.client import ServerResponse
from chassis.http1.limits import Limits
from chassis.http1.no_response import NoResponse
from chassis.logs import Log
from sidecar.authserver_client import AuthserverClient
from sidecar.broker import Broker
from sidecar.client_credential import OwnCredential
from sidecar.metrics import Metrics
from sidecar.revocation_answer import InvalidRevocations, RevocationAnswer, read_revocations

_log = Log("revocation_listener")

ROUTE: Final = "/internal/revocations"

# 5000 endings of at most a hundred bytes.
_LIMITS: Final = Limits(body_bytes=1024 * 1024, connections=1, idle_seconds=30.0)
_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/x-www-form-urlencoded",
    "User-Agent": "tokenward-sidecar",
}
# The authserver answers after 25 seconds, whatever happens.
_ANSWER_SECONDS: Final = 35.0
_FIRST_PAUSE_SECONDS: Final = 2.0
_MAX_PAUSE_SECONDS: Final = 30.0
# An older authserver has no feed; it may be upgraded.
_UNSUPPORTED_PAUSE_SECONDS: Final = 300.0
# An answer without news that comes so soon is that of an authserver that shuts down.
_SOON_SECONDS: Final = 5.0


class Streams(Protocol):
    """Whoever holds what a session or connection allowed for longer than one answer."""

    def ended(self, handles: frozenset[str]) -> object:
        """End, at once, what belongs to these sessions and connections."""
        ...

    def look_again(self) -> None:
        """Endings may have been missed: look at everything again, spread over ten seconds."""
        ...


class RevocationListener:
    """`now` is a monotonic clock in seconds; `jitter` draws from 0 to 1."""

    def __init__(
        self,
        url: str,
        credential: OwnCredential,
        broker: Broker,
        metrics: Metrics,
        *,
        now: Clock,
        jitter: Callable[[], float],
    ) -> None:
        self._client = AuthserverClient(url, credential, _LIMITS)
        self._broker, self._metrics = broker, metrics
        self._now, self._jitter = now, jitter
        self._streams: list[Streams] = []
        self._cursor: str | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._complaint = ""
        self.heard_at: float | None = None  # when the feed answered last, on the monotonic clock

    def follow(self, streams: Streams) -> None:
        """Tell `streams` too what ends."""
        self._streams.append(streams)

    async def run(self) -> None:
        """Poll until cancelled."""
        pause = self._jitter()
        while True:
            await asyncio.sleep(pause)
            pause = await self.poll()

    async def poll(self) -> float:
        """One poll, and all that follows from its answer; seconds to wait before the next."""
        started = self._now()
        try:
            answer = await self._request()
        except _Failed as failed:
            return self._after_failure(str(failed))
        self._works()
        self._cursor, self.heard_at = answer.cursor, self._now()
        news = self._act_on(answer)
        # Sidecars that are sent away together do not come back together.
        hurried = not news and self._now() - started < _SOON_SECONDS
        return self._jitter() * _SOON_SECONDS if hurried else 0.0

    def close(self) -> None:
        self._client.close()

    async def _request(self) -> RevocationAnswer:
        """Raises _Failed."""
        client = self._client.renew()
        if client is None:
            raise _Failed("credential_not_ready")
        form = {} if self._cursor is None else {"cursor": self._cursor}
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await client.request(
                    "POST", ROUTE, _HEADERS.items(), urlencode(form).encode()
                )
        except (NoResponse, TimeoutError):
            raise _Failed("unreachable") from None
        return _read(response, self._broker.ended)

    def _act_on(self, answer: RevocationAnswer) -> bool:
        """Drop what ended; whether there was anything that we did not know."""
        if answer.everything:
            self._metrics.revocations_dropped(self._broker.end_everything())
        handles = self._broker.ended.announce(answer.ended)
        if handles:
            self._metrics.revocations_dropped(self._broker.end(handles))
        for streams in self._streams:
            if handles:
                streams.ended(handles)
            if answer.gap or answer.everything:
                streams.look_again()
        return bool(handles or answer.gap or answer.everything)

    def _works(self) -> None:
        self._metrics.revocation_poll("ok")
        self._pause = _FIRST_PAUSE_SECONDS
        if self._complaint:
            _log.info("revocation_feed_works_again", after=self._complaint)
        self._complaint = ""

    def _after_failure(self, reason: str) -> float:
        """Seconds to wait; longer with each failure, and different for each sidecar."""
        self._metrics.revocation_poll("unsupported" if reason == _UNSUPPORTED else "failed")
        if reason != self._complaint:
            say = _log.info if reason == _UNSUPPORTED else _log.warning
            say("revocation_feed_lost", reason=reason)
        self._complaint = reason
        spread = 0.5 + self._jitter()
        if reason == _UNSUPPORTED:
            return _UNSUPPORTED_PAUSE_SECONDS * spread
        pause, self._pause = self._pause, min(2 * self._pause, _MAX_PAUSE_SECONDS)
        return pause * spread


class _Failed(Exception):
    """A poll brought nothing; the text is a code."""


_UNSUPPORTED: Final = "unsupported"


def _read(response: ServerResponse, known: Container[str]) -> RevocationAnswer:
    """Raises _Failed."""
    match response.status:
        case 200:
            pass
        case 404:
            raise _Failed(_UNSUPPORTED)
        case 401 | 403:
            raise _Failed("identity_refused")
        case _:
            raise _Failed("unavailable" if response.status == 503 else "unexpected_answer")
    try:
        return read_revocations(response.body, known)
    except InvalidRevocations as invalid:
        raise _Failed(str(invalid)) from None
