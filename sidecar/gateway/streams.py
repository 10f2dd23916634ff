"""The requests that the app is answering: how many, for whom, and when they end (amendment 16).

A stream that began with an accepted JWT may outlive it. While the JWT is valid, it is exchanged
again every half minute. After that the announcements of ended sessions decide.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from chassis.clock import Clock
from chassis.logs import Log
from sidecar.errors import DENIALS, ApiError
from sidecar.gateway.errors import SERVER_FULL, TOO_MANY_STREAMS
from sidecar.identity import Identity
from sidecar.unverified_jwt import expiry_of

_log = Log("gateway")

MAX_PER_USER: Final = 64
MAX_PER_POD: Final = 1_024
LOOK_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 60.0
_SPREAD_SECONDS: Final = 10
_PATIENCE_SECONDS: Final = 30.0  # for an event to end

_NEVER: Final = float("inf")

Look = Callable[[str], Awaitable[object]]


class Stream:
    """One request at the app. `wake` is called when it has to end: to stop what it waits for."""

    __slots__ = (
        "accepted_jwt", "began", "between_events", "ends_at", "events", "identity", "looked_at",
        "reason", "stop_at", "tail", "wake",
    )  # fmt: skip

    def __init__(self, identity: Identity, accepted_jwt: str, now: float) -> None:
        self.identity, self.accepted_jwt = identity, accepted_jwt
        self.began = self.looked_at = now
        self.ends_at: float | None = None  # of the JWT, in Unix time; read when it is needed
        self.events = False  # the response is a stream of events
        self.between_events, self.tail = True, b""
        self.reason = ""  # why it ends
        self.stop_at = _NEVER  # when it ends in the middle of an event
        self.wake: Callable[[], object] = _nothing

    def __repr__(self) -> str:
        return "<Stream>"

    def passed(self, data: bytes) -> None:
        """This part of the response goes to the client."""
        if self.events:
            self.tail = (self.tail + data)[-4:] if len(data) < 4 else data[-4:]
            self.between_events = self.tail.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))
        else:
            self.between_events = False

    def end(self, reason: str) -> None:
        """End it now."""
        self.reason = self.reason or reason
        self.wake()

    def end_between_events(self, reason: str, now: float) -> None:
        """End it now, or after the event that is under way."""
        if self.reason:
            if now >= self.stop_at:
                self.wake()
            return
        self.reason, self.stop_at = reason, now + _PATIENCE_SECONDS
        if self.between_events:
            self.wake()


class Streams:
    """Every stream of one gateway. `now` is monotonic, `times` is Unix time by credible clocks.

    `look` exchanges a JWT again. `feed_heard` says when the feed of ended sessions was heard last,
    by `now`; None where there is none.
    """

    def __init__(
        self,
        look: Look,
        *,
        now: Clock,
        times: Callable[[], Iterable[float]],
        stream_max: float,
        feed_heard: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._look, self._now, self._times = look, now, times
        self._stream_max, self._feed_heard = stream_max, feed_heard
        self._streams: set[Stream] = set()
        self._users: Counter[str] = Counter()
        self._looks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, identity: Identity, accepted_jwt: str) -> Stream | ApiError:
        """Count one more, unless there are too many."""
        if len(self._streams) >= MAX_PER_POD:
            return SERVER_FULL.with_reason("streams_of_pod")
        if self._users[identity.sub] >= MAX_PER_USER:
            return TOO_MANY_STREAMS.with_reason("streams_of_user")
        stream = Stream(identity, accepted_jwt, self._now())
        self._streams.add(stream)
        self._users[identity.sub] += 1
        return stream

    def close(self, stream: Stream) -> None:
        """It is over; a second call does nothing."""
        if stream not in self._streams:
            return
        self._streams.discard(stream)
        stream.wake = _nothing  # it leads back to the stream: only the collector would free both
        self._users[stream.identity.sub] -= 1
        if not self._users[stream.identity.sub]:
            del self._users[stream.identity.sub]

    def ended(self, handles: frozenset[str]) -> int:
        """These sessions and connections have ended: their streams end at once. How many."""
        theirs = [
            stream
            for stream in self._streams
            if stream.identity.session in handles or stream.identity.connection in handles
        ]
        for stream in theirs:
            stream.end("ended")
        if theirs:
            _log.info("streams_ended", count=len(theirs))
        return len(theirs)

    def look_again(self) -> None:
        """Endings may have been missed: exchange every JWT again, spread over ten seconds."""
        now = self._now()
        for number, stream in enumerate(self._streams):
            due_in = number % _SPREAD_SECONDS
            stream.looked_at = min(stream.looked_at, now - LOOK_SECONDS + due_in)

    def tick(self) -> None:
        """Look at every stream; called every few seconds."""
        now, times = self._now(), tuple(self._times())
        due: dict[str, list[Stream]] = {}
        for stream in list(self._streams):
            if now - stream.began > self._stream_max:
                stream.end_between_events("stream_max", now)
            elif self._jwt_is_over(stream, times):
                if self._feed_is_silent(now):
                    stream.end("jwt_over")
            elif now - stream.looked_at >= LOOK_SECONDS:
                stream.looked_at = now
                due.setdefault(stream.accepted_jwt, []).append(stream)
        for accepted_jwt, streams in due.items():
            look = asyncio.create_task(self._look_again(accepted_jwt, streams))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    def cancel_all(self) -> None:
        """Nobody is asked any more: the process ends."""
        for look in self._looks:
            look.cancel()

    def _jwt_is_over(self, stream: Stream, times: tuple[float, ...]) -> bool:
        if stream.ends_at is None:
            ends = expiry_of(stream.accepted_jwt)
            stream.ends_at = _NEVER if ends is None else ends
        return bool(times) and min(times) >= stream.ends_at

    def _feed_is_silent(self, now: float) -> bool:
        heard = self._feed_heard()
        return heard is None or now - heard > SILENCE_SECONDS

    async def _look_again(self, accepted_jwt: str, streams: list[Stream]) -> None:
        outcome = await self._look(accepted_jwt)
        if isinstance(outcome, ApiError) and outcome.error in DENIALS:
            for stream in streams:
                # The JWT may have ended while it was asked for: then the rule above decides.
                if stream in self._streams and not self._jwt_is_over(stream, tuple(self._times())):
                    stream.end("refused")


def _nothing() -> None:
    pass
