"""The steps of reviews that arrive in one turn, and that none of them disturbs another."""

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from chassis.http1.continuation import Outcome
from chassis.http1.request import Request
from chassis.http1.response import Response
from chassis.probes import Readiness
from tests.chassis.http1.harness import OK, Failures, Wire, make, statuses
from tests.webhook.pods import pod, recorded, settings
from webhook import admission_review, listener, review_turn
from webhook.metrics import Metrics
from webhook.review_turn import ReviewTurn


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


class _Steps:
    """A handler whose requests take two steps together, and what was done in which order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._turn = ReviewTurn(self._first, self._second)

    def __call__(self, request: Request) -> Outcome:
        return self._turn.add(request, request.target)

    def _first(self, target: str) -> str | Response:
        self.done.append(f"first {target}")
        if target == "/broken":
            raise IndexError("secret")
        return Response(OK, b"at once") if target == "/short" else target

    def _second(self, target: str) -> Response:
        self.done.append(f"second {target}")
        return Response(OK, target.encode())


def _sent(steps: _Steps, *paths: str, failed: Failures | None = None) -> list[Wire]:
    server = make(steps, failed=failed or Failures())
    wires = [Wire(server) for _ in paths]
    for wire, path in zip(wires, paths, strict=True):
        wire.connection.data_received(_get(path))
    return wires


def _bodies(wires: list[Wire]) -> list[bytes]:
    return [bytes(wire.transport.written).rpartition(b"\r\n\r\n")[2] for wire in wires]


async def test_all_take_a_step_before_any_takes_the_next() -> None:
    steps = _Steps()
    wires = _sent(steps, "/a", "/b", "/c")
    assert steps.done == []
    await asyncio.sleep(0)
    assert steps.done == [f"{step} /{name}" for step in ("first", "second") for name in "abc"]
    assert _bodies(wires) == [b"/a", b"/b", b"/c"]


async def test_a_response_of_an_early_step_is_the_answer() -> None:
    steps = _Steps()
    wires = _sent(steps, "/short", "/a")
    await asyncio.sleep(0)
    assert steps.done == ["first /short", "first /a", "second /a"]
    assert _bodies(wires) == [b"at once", b"/a"]


async def test_a_failure_costs_its_own_request_alone() -> None:
    steps, failed = _Steps(), Failures()
    wires = _sent(steps, "/a", "/broken", "/b", failed=failed)
    await asyncio.sleep(0)
    assert [statuses(bytes(wire.transport.written)) for wire in wires] == [[200], [500], [200]]
    assert [type(failure.bug) for failure in failed.all] == [IndexError]


async def test_what_is_cancelled_takes_no_step() -> None:
    steps = _Steps()
    wires = _sent(steps, "/a", "/b")
    wires[0].connection.cancel()
    await asyncio.sleep(0)
    assert steps.done == ["first /b", "second /b"]
    assert [statuses(bytes(wire.transport.written)) for wire in wires] == [[503], [200]]


async def test_the_peer_that_went_away_disturbs_nobody() -> None:
    wires = _sent(_Steps(), "/a", "/b")
    wires[0].end()
    await asyncio.sleep(0)
    assert _bodies(wires) == [b"", b"/b"]


async def test_requests_that_follow_on_a_connection_have_turns_of_their_own() -> None:
    steps = _Steps()
    wire = Wire(make(steps))
    answer = await wire.send(_get("/a") + _get("/b"))
    assert statuses(answer) == [200, 200]
    assert steps.done == ["first /a", "second /a", "first /b", "second /b"]


async def test_no_more_wait_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_turn, "_MOST", 2)
    steps = _Steps()
    wires = _sent(steps, "/a", "/b", "/c")
    assert _bodies(wires) == [b"/a", b"/b", b""]
    await asyncio.sleep(0)
    assert _bodies(wires) == [b"/a", b"/b", b"/c"]


def _review(padding: int) -> bytes:
    made, review = pod(), recorded("pod-create-bare")
    made["metadata"]["annotations"]["padding"] = "x" * padding
    review["request"]["object"] = made
    body = json.dumps(review).encode()
    head = (
        "POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _webhook() -> Any:
    under = settings()
    return listener.server(lambda: under, Readiness(), Metrics(CollectorRegistry()))


def test_a_review_that_waits_does_not_show_its_pod() -> None:
    assert "canary" not in repr(listener._Arrived(b'{"value": "canary"}', True, 0.0))


async def test_no_waiting_review_is_larger_than_the_bound() -> None:
    server = _webhook()
    small, large = Wire(server), Wire(server)
    small.connection.data_received(_review(10))
    large.connection.data_received(_review(review_turn.MAX_BODY))
    assert statuses(bytes(small.transport.written)) == []
    assert statuses(bytes(large.transport.written)) == [200]
    await asyncio.sleep(0)
    assert statuses(bytes(small.transport.written)) == [200]


async def test_each_review_of_a_turn_is_gone_when_the_next_is_decided_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[int] = []
    held_by_requests: list[int] = []
    parse = admission_review.parse
    server = _webhook()
    wires = [Wire(server) for _ in range(5)]

    def parsing(body: bytes) -> admission_review.Request:
        works: list[Any] = [wire.connection._work for wire in wires]
        held.append(sum(isinstance(work.state, listener._Arrived) for work in works))
        held_by_requests.append(sum(len(work.request.body) for work in works))
        return parse(body)

    monkeypatch.setattr(admission_review, "parse", parsing)
    for wire in wires:
        wire.connection.data_received(_review(10))
    await asyncio.sleep(0)
    assert held == [5, 4, 3, 2, 1]
    assert held_by_requests == [0] * len(wires)
