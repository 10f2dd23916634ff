"""The sidecar's metrics: every label value comes from a closed set, and exists from the start."""

from collections.abc import Callable, Iterator
from typing import Final

from chassis.metric_families import Durations, Family, counter, gauge, histogram
from chassis.probes import DURATION_BUCKETS
from sidecar.errors import RESULTS
from sidecar.unverified_jwt import PROBLEMS

CACHE_RESULTS: Final = ("hit", "miss", "coalesced", "negative")
DOORS: Final = ("hand_out", "attach", "gateway")
ANSWERS_WITH_TOKEN: Final = ("refused", "cut_off")
POLL_RESULTS: Final = ("ok", "unsupported", "failed")


class Metrics:
    """What happened, counted in plain numbers: there is one thread, so no number needs a lock."""

    def __init__(self) -> None:
        self._doors = {door: _Door() for door in DOORS}
        self._cache = dict.fromkeys(CACHE_RESULTS, 0)
        self._exchanges = {result: Durations(DURATION_BUCKETS) for result in sorted(RESULTS)}
        self._refused_jwts = dict.fromkeys(PROBLEMS, 0)
        self._with_token = dict.fromkeys(ANSWERS_WITH_TOKEN, 0)
        self._reloads = {"ok": 0, "failed": 0}
        self._polls = dict.fromkeys(POLL_RESULTS, 0)
        self._feed_up, self._dropped = False, 0
        self._expiry, self._expired_cas = 0.0, 0
        self._entries: Callable[[], int] = int

    def answered(self, result: str, seconds: float, door: str = "hand_out") -> None:
        """A call of a door; `seconds` is how long it took until the answer's head was there."""
        self._doors[door].answered(result, seconds)

    def token_in_response(self, answer: str) -> None:
        self._with_token[answer] += 1

    def revocation_poll(self, result: str) -> None:
        self._polls[result] += 1
        self._feed_up = result == "ok"

    def revocations_dropped(self, count: int) -> None:
        self._dropped += count

    def cache(self, result: str) -> None:
        self._cache[result] += 1

    def refused_jwt(self, reason: str) -> None:
        self._refused_jwts[reason] += 1

    def exchanged(self, result: str, seconds: float) -> None:
        self._exchanges[result].observe(seconds)

    def credential_reloaded(self, succeeded: bool) -> None:
        self._reloads["ok" if succeeded else "failed"] += 1

    def expired_cas(self, count: int) -> None:
        self._expired_cas = count

    def credential_expires(self, at: float) -> None:
        self._expiry = at

    def count_entries(self, entries: Callable[[], int]) -> None:
        self._entries = entries

    def collect(self) -> Iterator[Family]:
        """Everything counted so far."""
        yield from self._of_calls()
        yield from self._of_tokens()
        yield from self._of_credentials()
        yield from self._of_revocations()

    def _of_calls(self) -> Iterator[Family]:
        calls: dict[tuple[str, ...], int] = {
            (name, result): count
            for name, door in self._doors.items()
            for result, count in door.results.items()
        }
        yield counter("tokenward_sidecar_requests", "Calls of the doors.", calls, _DOOR_RESULT)
        yield histogram(
            "tokenward_sidecar_request_duration_seconds",
            "Time until a call of a door had the head of its answer.",
            "door",
            {name: door.durations for name, door in self._doors.items()},
        )
        yield _counted(
            "tokenward_sidecar_refused_jwts",
            "JWTs that cannot be good for this workload and were refused without an exchange.",
            "reason",
            self._refused_jwts,
        )
        yield _counted(
            "tokenward_sidecar_token_in_response",
            "Answers of APIs that held the attached token, by what became of them.",
            "answer",
            self._with_token,
        )

    def _of_tokens(self) -> Iterator[Family]:
        yield _counted(
            "tokenward_sidecar_cache", "How calls met the memory.", "result", self._cache
        )
        yield gauge("tokenward_sidecar_cache_entries", "Tokens held in memory.", self._entries())
        yield histogram(
            "tokenward_sidecar_exchange_duration_seconds",
            "Time of an exchange with the authserver, retries included.",
            "result",
            self._exchanges,
        )

    def _of_credentials(self) -> Iterator[Family]:
        yield gauge(
            "tokenward_credential_expiry_timestamp_seconds",
            "When the certificate in use expires; 0 while there is none.",
            self._expiry,
        )
        yield _counted(
            "tokenward_credential_reloads",
            "Changed credential files, by whether they could be used.",
            "result",
            self._reloads,
        )
        yield gauge(
            "tokenward_expired_cas",
            "Expired CAs in the bundle that the authserver is checked against; they are left out.",
            self._expired_cas,
        )

    def _of_revocations(self) -> Iterator[Family]:
        yield _counted(
            "tokenward_sidecar_revocation_polls",
            "Polls of the revocation feed, by what they came to.",
            "result",
            self._polls,
        )
        yield gauge(
            "tokenward_sidecar_revocation_feed_up",
            "Whether the last poll of the revocation feed was answered.",
            self._feed_up,
        )
        yield counter(
            "tokenward_sidecar_revocation_drops",
            "Tokens dropped from memory because their session or connection ended.",
            {(): self._dropped},
        )


_DOOR_RESULT: Final = ("door", "result")


def _counted(name: str, documentation: str, label: str, counts: dict[str, int]) -> Family:
    values: dict[tuple[str, ...], int] = {(value,): count for value, count in counts.items()}
    return counter(name, documentation, values, (label,))


class _Door:
    """Calls of one door."""

    __slots__ = ("durations", "results")

    def __init__(self) -> None:
        self.results = dict.fromkeys(sorted(RESULTS), 0)
        self.durations = Durations(DURATION_BUCKETS)

    def answered(self, result: str, seconds: float) -> None:
        self.results[result] += 1
        self.durations.observe(seconds)
