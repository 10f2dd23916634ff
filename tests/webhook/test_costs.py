"""What a pod costs grows with it and no faster: whoever reaches the port may post one.

Work is counted, never timed.
"""

import asyncio
import difflib
import json
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from chassis.http1.listener import Listener
from chassis.probes import Readiness
from tests.webhook.pods import NAMESPACE, SIDECAR, injected, pod, recorded, settings, verdict
from webhook import admission_review, annotations, conflicts, listener, options
from webhook.evaluate import AdmissionResult, evaluate
from webhook.metrics import Metrics
from webhook.reasons import EXPLAINED, MAX_DENIAL, Reason, Violation, denial

_MANY = 1_000


class _Counted(list[Violation]):
    looked_at = 0

    def __iter__(self) -> Iterator[Violation]:
        for refusal in super().__iter__():
            self.looked_at += 1
            yield refusal


@pytest.mark.parametrize("length", [1, 10, 200, 1001, 1014, 1100])
@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 100, _MANY])
def test_a_denial_holds_as_many_of_the_first_refusals_as_fit_and_counts_the_rest(
    count: int, length: int
) -> None:
    texts = [f"({at}) {'x' * length}" for at in range(1, count + 1)]
    told = denial([Violation(Reason.BAD_VALUE, "x" * length)] * count)
    assert len(told) <= MAX_DENIAL
    fitting = [
        text
        for kept in range(1, min(count, MAX_DENIAL) + 1)
        if len(text := _joined(texts[:kept], count - kept)) <= MAX_DENIAL
    ]
    if fitting:
        assert told == fitting[-1]
    else:
        rest = _joined([], count - 1).removeprefix("tokenward: ")
        assert len(told) == MAX_DENIAL
        assert told.startswith("tokenward: (1) xxx")
        assert told.endswith(f"x{rest}")


def _joined(texts: list[str], more: int) -> str:
    return "tokenward: " + "; ".join(texts) + (f"; and {more} more" if more else "")


def test_a_denial_looks_at_no_more_refusals_than_fit() -> None:
    refusals = _Counted([Violation(Reason.UNKNOWN_KEY, "x" * 50)] * _MANY)
    assert denial(refusals).endswith(" more")
    assert refusals.looked_at < MAX_DENIAL / 50


def test_only_the_first_unknown_keys_are_compared_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared, close_matches = [], difflib.get_close_matches

    def counting(word: str, *rest: Any, **options: Any) -> list[str]:
        compared.append(word)
        return close_matches(word, *rest, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    told = verdict(pod({f"sever-{at}": "" for at in range(_MANY)}))
    assert len(compared) == EXPLAINED
    assert "did you mean tokenward.dev/server?" in told.message
    assert len(told.refusals) == _MANY
    assert f'"tokenward.dev/sever-{_MANY - 1}" is unknown' in told.refusals[-1]


def test_the_pods_containers_are_listed_once_however_many_names_are_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ordered = 0

    def counting(items: Any) -> list[Any]:
        nonlocal ordered
        ordered += len(items)
        return sorted(items)

    monkeypatch.setattr(conflicts, "sorted", counting, raising=False)
    named = ",".join(f"unknown-{at}" for at in range(_MANY))
    told = verdict(pod({"containers": named}, containers=[{"name": f"a{n}"} for n in range(_MANY)]))
    assert len(told.refusals) == _MANY
    assert "which the pod does not have; allowed: a0, a1, a10" in told.message
    assert ordered <= 2 * _MANY
    assert sum(map(len, told.refusals)) < 100 * _MANY


def test_the_names_a_denial_lists_are_escaped() -> None:
    told = verdict(pod({"containers": "x"}, containers=[{"name": "a\n\x1b[31m\u202e" * 100}]))
    assert told.reason is Reason.NO_SUCH_CONTAINER
    assert told.message.isprintable()
    assert told.message.isascii()
    assert len(told.message) < 500


def _posted(made: dict[str, Any]) -> bytes:
    posted = recorded("pod-create-bare")
    posted["request"]["object"] = made
    return json.dumps(posted).encode()


def _judged(body: bytes) -> AdmissionResult:
    found = admission_review.pod(admission_review.parse(body), body)
    return evaluate(found, NAMESPACE, settings(), namespace_opted_in=False)


def test_a_review_is_read_whole_once_however_many_volumes_look_like_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder, decoded = admission_review._tolerant, []

    class Counting:
        def decode(self, body: bytes) -> Any:
            decoded.append(len(body))
            return decoder.decode(body)

    monkeypatch.setattr(admission_review, "_tolerant", Counting())
    made = injected(pod())
    assert [c["name"] for c in made["spec"]["initContainers"]] == [SIDECAR]
    made["spec"]["volumes"] += [{"name": "tokenward-credential", "emptyDir": {}}] * _MANY
    told = _judged(_posted(made))
    assert len(told.refusals) == _MANY
    assert len(decoded) == 1


def _remembered(made: dict[str, Any]) -> bool:
    options._remembered.cache_clear()
    verdict(made)
    return options._remembered.cache_info().currsize == 1


def test_no_more_keys_are_remembered_than_a_pod_may_have() -> None:
    assert not _remembered(pod({f"x{at}": "" for at in range(30)}))
    assert not _remembered(pod(labels={f"tokenward.dev/x{at}": "" for at in range(30)}))
    values = {key.removeprefix("tokenward.dev/"): "x" * 15 for key in annotations.KNOWN}
    assert _remembered(pod(values, labels={"tokenward.dev/injected": "true"}))


def test_long_lists_of_containers_are_not_remembered() -> None:
    assert not _remembered(pod({"skip-containers": ",".join(f"{at:x}" for at in range(500))}))
    assert _remembered(pod({"skip-containers": ",".join(f"{at:x}" for at in range(100))}))


async def test_no_review_is_in_memory_when_the_next_one_is_decided_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many arrive together, in one piece or in several."""
    bodies = [b"a body that only this list keeps %d" % id(monkeypatch)]
    keepers: list[int] = []
    parse = admission_review.parse

    def parsing(body: bytes) -> admission_review.Request:
        keepers.extend(sys.getrefcount(one) for one in bodies)
        bodies.append(body)
        return parse(body)

    monkeypatch.setattr(admission_review, "parse", parsing)
    under = settings()
    server = listener.server(lambda: under, Readiness(), Metrics(CollectorRegistry()))
    bound = await Listener("webhook", "127.0.0.1", 0, server).bind(drain_seconds=1.0)
    reviews = []
    for padding in (10, 300_000) * 4:
        made = pod()
        made["metadata"]["annotations"]["padding"] = "x" * padding
        reviews.append(_posted(made))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{bound.port}") as client:
        answers = await asyncio.gather(*(_status(client, review) for review in reviews))
    await bound.cleanup()
    assert answers == [200] * len(reviews)
    assert len(bodies) == 1 + len(reviews)
    assert len(set(keepers)) == 1


async def _status(client: aiohttp.ClientSession, review: bytes) -> int:
    headers = {"Content-Type": "application/json"}
    async with client.post("/mutate", data=BytesIO(review), headers=headers) as answer:
        return answer.status
