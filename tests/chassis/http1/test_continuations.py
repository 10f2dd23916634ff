"""Handlers that wait for one thing without a task, and the client's part in that."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chassis.http1.continuation import Continuation, Outcome
from chassis.http1.no_response import Disconnected
from chassis.http1.outgoing import RequestHead
from chassis.http1.request import Request
from chassis.http1.response import Response, StreamResponse
from chassis.http1.slots import Slots
from chassis.http1.streamed_response import StreamedResponse
from tests.chassis.http1.harness import OK, Failures, Wire, make, statuses, until
from tests.chassis.http1.scripted import OK as WHOLE
from tests.chassis.http1.scripted import client, scripted

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ASK = RequestHead("GET", "/", "a")


class Waits(Continuation):
    """Answers with what it is resumed with; remembers whether it was abandoned."""

    abandoned = False

    def proceed(self, result: Any) -> Outcome:
        if isinstance(result, Exception):
            raise result
        return result if not isinstance(result, bytes) else Response(OK, result)

    def abandon(self) -> None:
        self.abandoned = True


class Waiting:
    """A handler all of whose requests wait."""

    def __init__(self) -> None:
        self.begun: list[Waits] = []

    def __call__(self, request: Request) -> Outcome:
        self.begun.append(Waits(request))
        return self.begun[-1]


async def test_the_next_request_is_handled_when_the_first_is_answered() -> None:
    handler = Waiting()
    wire = Wire(make(handler))
    wire.connection.data_received(GET + GET)
    assert len(handler.begun) == 1
    handler.begun[0].resume(b"one")
    assert bytes(wire.transport.written).endswith(b"\r\n\r\none")
    assert len(handler.begun) == 2
    handler.begun[1].resume(b"two")
    assert statuses(bytes(wire.transport.written)) == [200, 200]


async def test_a_second_result_answers_nothing() -> None:
    handler = Waiting()
    wire = Wire(make(handler))
    wire.connection.data_received(GET)
    handler.begun[0].resume(b"one")
    handler.begun[0].resume(b"another")
    handler.begun[0].cancel()
    assert statuses(bytes(wire.transport.written)) == [200]
    assert not handler.begun[0].abandoned


async def test_a_bug_costs_its_request_alone() -> None:
    handler, failures = Waiting(), Failures()
    wire = Wire(make(handler, failed=failures))
    wire.connection.data_received(GET + GET)
    handler.begun[0].resume(ZeroDivisionError())
    handler.begun[1].resume(b"two")
    assert statuses(bytes(wire.transport.written)) == [500, 200]
    assert failures.reasons == ["bug"]


@pytest.mark.parametrize("streams", [False, True])
async def test_what_takes_longer_goes_on_in_a_task(streams: bool) -> None:
    async def later() -> Response:
        await asyncio.sleep(0)
        return Response(OK, b"ab")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    handler = Waiting()
    wire = Wire(make(handler))
    wire.connection.data_received(GET)
    handler.begun[0].resume(StreamResponse(OK, pieces(), length=2) if streams else later())
    await wire.settle()
    assert bytes(wire.transport.written).endswith(b"\r\n\r\nab")


async def test_draining_answers_503_and_lets_go() -> None:
    handler = Waiting()
    server = make(handler)
    wire = Wire(server)
    wire.connection.data_received(GET)
    server.begin_drain()
    wire.connection.cancel()
    assert handler.begun[0].abandoned
    handler.begun[0].resume(b"late")
    assert statuses(bytes(wire.transport.written)) == [503]


@pytest.mark.parametrize(("seconds", "abandoned"), [(1.0, True), (None, False)])
async def test_a_peer_that_is_gone(seconds: float | None, abandoned: bool) -> None:
    handler = Waiting()
    wire = Wire(make(handler, abandon_seconds=seconds))
    wire.connection.data_received(GET)
    wire.end()
    assert handler.begun[0].abandoned is abandoned
    handler.begun[0].resume(b"late")
    assert not wire.transport.written


async def test_a_peer_that_sent_its_last_byte_is_waited_for_no_longer() -> None:
    handler = Waiting()
    wire = Wire(make(handler, abandon_seconds=0.0))
    wire.connection.data_received(GET)
    wire.connection.eof_received()
    await until(lambda: handler.begun[0].abandoned)
    assert statuses(bytes(wire.transport.written)) == [503]


# The client.


async def test_a_request_begins_at_once_on_an_idle_connection_only() -> None:
    results: list[StreamedResponse | Exception] = []
    async with scripted(WHOLE, WHOLE) as (script, port):
        asking = client(port)
        assert asking.begin(ASK, None, results.append, None) is None
        await asking.request("GET", "/")
        connection = asking.begin(ASK, None, results.append, None)
        assert connection is not None
        assert asking.begin(ASK, None, results.append, None) is None
        await until(lambda: results)
        response = results[0]
        assert isinstance(response, StreamedResponse)
        assert response.whole
        assert (response.status, response.take()) == (200, b"ok")
        assert connection.reusable
        asking.close()
    assert script.connections == 1


async def test_a_connection_that_is_closing_takes_no_request() -> None:
    async with scripted(WHOLE) as (_, port):
        asking = client(port)
        await asking.request("GET", "/")
        asking._idle[-1].abort()
        assert asking.begin(ASK, None, lambda _: None, None) is None
        asking.close()


async def test_a_request_that_is_abandoned_calls_nobody_and_costs_its_connection() -> None:
    results: list[StreamedResponse | Exception] = []
    async with scripted(WHOLE, b"") as (_, port):
        asking = client(port)
        await asking.request("GET", "/")
        connection = asking.begin(ASK, None, results.append, None)
        assert connection is not None
        connection.abandon(print)  # somebody else's
        assert connection._receive is not None
        connection.abandon(results.append)
        assert not connection.is_open
        assert not asking._idle
        assert not results
        asking.close()


async def test_a_server_that_hangs_up_is_told_to_who_waits() -> None:
    results: list[StreamedResponse | Exception] = []
    async with scripted(WHOLE, None) as (_, port):
        asking = client(port)
        await asking.request("GET", "/")
        assert asking.begin(ASK, None, results.append, None) is not None
        await until(lambda: results)
        asking.close()
    assert isinstance(results[0], Disconnected)


# Slots.


async def test_slots_go_to_those_that_wait_in_their_order() -> None:
    slots, served = Slots(1), list[int]()

    async def wait(number: int) -> None:
        await slots.wait()
        served.append(number)

    assert slots.take()
    assert not slots.take()
    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    slots.give_back()
    assert not slots.take()
    await waiting[0]
    slots.give_back()
    await waiting[2]
    assert served == [0, 2]
    slots.give_back()
    assert slots.take()


async def test_a_slot_given_to_somebody_who_was_cancelled_is_not_lost() -> None:
    slots = Slots(1)
    assert slots.take()
    waiting = asyncio.create_task(slots.wait())
    await asyncio.sleep(0)
    slots.give_back()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.take()
