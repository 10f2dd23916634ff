"""Slow, huge and hostile local callers cost themselves their connection, and others nothing."""

import asyncio
import contextlib
import gzip
import json
from pathlib import Path

import pytest

from chassis.http1.connection import Connection
from sidecar.local_server import MAX_CONNECTIONS
from sidecar.timeouts import DEFAULT, Timeouts
from tests.fakes.authserver import held_until
from tests.sidecar.harness import JWT, Authorities, Harness, harness, listening


def head(r: Harness, more: str) -> bytes:
    return (
        f"POST /v1/token HTTP/1.1\r\nHost: 127.0.0.1:{r.port}\r\nAuthorization: Bearer {JWT}\r\n"
        f"X-Tokenward: 1\r\nContent-Type: application/json\r\n{more}\r\n"
    ).encode()


@pytest.mark.parametrize("sent", [b"P", b"POST /v1/token HTTP/1.1\r\nHost: 127"])
@pytest.mark.parametrize("calls_before", [0, 1])
async def test_a_head_that_never_ends_is_cut_off_and_nobody_else(
    tmp_path: Path, authorities: Authorities, calls_before: int, sent: bytes
) -> None:
    """Neither an idle connection nor a call that waits for the authserver is stalled."""
    async with harness(tmp_path, authorities, timeouts=Timeouts(head=0.05)) as r:
        assert (await r.ask()).status == 200  # and its connection is kept
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        for _ in range(calls_before):
            writer.write(head(r, "Content-Length: 2\r\n") + b"{}")
            assert b'"scope": "repo"}' in await reader.readuntil(b"}")
        released = asyncio.Event()
        r.authserver.always(held_until(released))
        waiting = asyncio.create_task(r.ask({"upstream": "github"}))
        await r.authserver.until_received(2)
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
        released.set()
        assert (await waiting).status == 200
        assert len(connections(r)) == 1


def test_callers_have_ten_seconds_for_a_head_and_ten_for_a_body() -> None:
    assert (DEFAULT.head, DEFAULT.body) == (10.0, 10.0)


def connections(r: Harness) -> set[Connection]:
    return r.sidecar.local.connections


async def until_read(r: Harness) -> None:
    """Wait until the sidecar has read a head and waits for its body."""
    await r.until(lambda: any(not connection.idle for connection in connections(r)))


async def test_a_body_that_never_ends_is_cut_off(tmp_path: Path, authorities: Authorities) -> None:
    async with harness(tmp_path, authorities, timeouts=Timeouts(body=0.02)) as r:
        answer = await r.send(head(r, "Content-Length: 20\r\n") + b"{")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"too long to arrive" in answer
        assert not r.authserver.received


async def test_a_body_in_pieces_is_read(r: Harness) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
    writer.write(head(r, "Content-Length: 2\r\nConnection: close\r\n"))
    await until_read(r)
    writer.write(b"{")
    writer.write(b"}")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_chunked_body_is_read_and_bounded(r: Harness) -> None:
    chunked = head(r, "Transfer-Encoding: chunked\r\nConnection: close\r\n")
    answer = await r.send(chunked + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    endless = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = await r.send(chunked + endless + endless)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"at most 16 KiB" in answer


async def test_a_broken_chunk_is_malformed(r: Harness) -> None:
    answer = await r.send(head(r, "Transfer-Encoding: chunked\r\n") + b"zz\r\n{}\r\n")
    assert b" 400 Bad Request\r\n" in answer
    assert not r.authserver.received


@pytest.mark.parametrize("more", ["Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_caller_that_hangs_up_or_babbles_in_mid_body_is_no_failure_of_ours(
    r: Harness, more: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="tokenward")
    _, writer = await asyncio.open_connection("127.0.0.1", r.port)
    writer.write(head(r, more))
    await until_read(r)
    writer.write(b"zz\r\n" if "chunked" in more else b"{")
    writer.close()
    await r.until(lambda: not connections(r))
    assert {record.msg for record in caplog.records} == {"refused"}


async def test_a_compressed_body_is_not_unpacked(r: Harness) -> None:
    reply = await r.ask(data=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    assert reply.status == 400


async def test_a_caller_that_asks_first_is_told_to_continue(r: Harness) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
    more = "Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n"
    writer.write(head(r, more))
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    writer.write(b"{}")
    assert b"HTTP/1.1 200 OK\r\n" in await reader.read()
    writer.close()


async def test_calls_sent_without_waiting_are_answered_in_order(r: Harness) -> None:
    call = head(r, "Content-Length: 2\r\n") + b"{}"
    last = head(r, "Content-Length: 2\r\nConnection: close\r\n") + b"[]"
    answer = await r.send(call + call + last)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"] == "invalid_request"


async def test_an_http_1_0_caller_is_answered_and_left(r: Harness) -> None:
    call = head(r, "Content-Length: 2\r\n").replace(b"HTTP/1.1", b"HTTP/1.0") + b"{}"
    for _ in range(2):
        assert (await r.send(call)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_http_1_0_caller_may_keep_its_connection(r: Harness) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
    call = head(r, "Content-Length: 2\r\nConnection: keep-alive\r\n") + b"{}"
    for _ in range(3):
        writer.write(call.replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Connection: keep-alive\r\n" in answer
    writer.close()


async def test_connections_are_capped_and_the_cap_is_not_the_end(r: Harness) -> None:
    calls = [await asyncio.open_connection("127.0.0.1", r.port) for _ in range(MAX_CONNECTIONS)]
    await r.until(lambda: len(connections(r)) == MAX_CONNECTIONS)
    reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    calls.pop()[1].close()
    await r.until(lambda: len(connections(r)) < MAX_CONNECTIONS)
    assert (await r.ask()).status == 200
    for _, other in calls:
        other.close()


async def test_a_bug_of_ours_is_an_outage_and_not_the_callers_fault(
    r: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise KeyError("canary")

    monkeypatch.setattr(r.sidecar.broker, "cached", bug)
    reply = await r.ask()
    assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
    assert any(record.msg == "unexpected_failure" for record in caplog.records)
    assert "canary" not in str([vars(record) for record in caplog.records])


async def test_draining_finishes_what_is_in_flight(r: Harness) -> None:
    released = asyncio.Event()
    r.authserver.always(held_until(released))
    async with listening(r.sidecar) as port:
        r.port = port
        waiting = asyncio.create_task(r.ask())
        await r.authserver.until_received(1)
        asyncio.get_running_loop().call_soon(released.set)
    assert (await waiting).status == 200


async def test_what_does_not_finish_in_time_is_told_to_come_back(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with harness(tmp_path, authorities, timeouts=Timeouts(shutdown=0.02)) as r:
        released = asyncio.Event()
        r.authserver.always(held_until(released))
        async with listening(r.sidecar) as port:
            r.port = port
            waiting = asyncio.create_task(r.ask())
            await r.authserver.until_received(1)
        reply = await waiting
        assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
        released.set()
