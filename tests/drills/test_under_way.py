"""How the outage drill counts the calls of one process that are under way together."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from aiohttp import web

from tests.drills.lateness import Lateness
from tests.drills.under_way import UnderWay

ONE, OTHER, RESTARTED = (0, 100), (1, 101), (0, 102)


class Provider:
    """Answers nobody; `call` makes one call and gives its two ends."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[web.Request] = asyncio.Queue()
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self._arrived.put_nowait(request)
        await asyncio.Event().wait()
        raise AssertionError

    async def call(self, stack: ExitStack) -> tuple[socket.socket, web.Request]:
        caller = stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
        caller.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        return caller, await self._arrived.get()


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    it, application = Provider(), web.Application()
    application.add_routes([web.post("/", it.answer)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    it.port = runner.addresses[0][1]
    try:
        yield it
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("second", "at_once"), [(ONE, 2), (OTHER, 1), (RESTARTED, 1)], ids=["one", "other", "restarted"]
)
async def test_calls_are_counted_by_the_process_that_made_them(
    second: tuple[int, int], at_once: int
) -> None:
    counted = UnderWay(Lateness())
    async with provider() as it:
        with ExitStack() as stack:
            for process in (ONE, second):
                _, request = await it.call(stack)
                stack.enter_context(counted.call(request, process))
    assert counted.most_at_once == at_once
    assert counted.most_in_trouble == at_once  # neither ever saw it work


async def test_a_call_whose_caller_has_given_up_is_not_under_way() -> None:
    """Even before our own loop has read that the connection ended."""
    counted = UnderWay(Lateness())
    async with provider() as it:
        with ExitStack() as stack:
            caller, first = await it.call(stack)
            stack.enter_context(counted.call(first, ONE))
            _, second = await it.call(stack)
            caller.close()
            assert not first.transport.is_closing()  # type: ignore[union-attr]
            stack.enter_context(counted.call(second, ONE))
    assert counted.most_at_once == 1


async def test_a_call_of_a_killed_process_counts_for_nobody() -> None:
    counted = UnderWay(Lateness())
    async with provider() as it:
        with ExitStack() as stack:
            _, first = await it.call(stack)
            stack.enter_context(counted.call(first, RESTARTED))
            caller, late = await it.call(stack)
            caller.close()
            stack.enter_context(counted.call(late, RESTARTED))
    assert counted.most_at_once == 1


async def test_a_process_that_saw_it_work_does_not_know_before_a_call_has_failed() -> None:
    counted = UnderWay(Lateness())
    counted.begin([ONE])
    async with provider() as it:
        with ExitStack() as stack:
            for _ in range(2):
                _, request = await it.call(stack)
                stack.enter_context(counted.call(request, ONE))
    assert (counted.most_at_once, counted.most_in_trouble) == (2, 0)


def test_a_machine_is_as_late_as_it_was_in_the_last_quarter_of_a_minute() -> None:
    lateness = Lateness()
    for now, late in ((0.0, 3.0), (10.0, 1.0), (20.0, 0.1)):
        lateness.note(now, late)
    assert (lateness.recent(), lateness.worst) == (1.0, 3.0)
