"""The client: whole responses or an error that says which kind, on connections that are kept."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from chassis.http1.no_response import BadResponse, Disconnected, Unreachable, Untrusted
from chassis.http1.request import Request
from chassis.http1.response import Response, ResponseHead, StreamResponse
from chassis.tls.contexts import KeyPair, client_context, mutual_server_context
from demo.pki import CertificateAuthority, write_credential
from tests.chassis.http1.harness import listening, make, seen, until
from tests.chassis.http1.scripted import BAD, GOOD, LOOPS, OK, client, scripted, serving


async def test_a_request_byte_for_byte() -> None:
    async with scripted(OK, OK) as (script, port):
        asking = client(port)
        response = await asking.request("GET", "/a?b", [("X-A", "c")])
        assert (response.status, response.headers.get("content-length"), response.body) == (
            200, "2", b"ok",
        )  # fmt: skip
        await asking.request("DELETE", "/")
        asking.close()
    assert (
        bytes(script.received)
        == (
            f"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-A: c\r\n\r\n"
            f"DELETE / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n"
        ).encode()
    )
    assert script.connections == 1


@pytest.mark.parametrize(
    ("method", "target", "field"),
    [
        ("GET", "/ a", ("X", "y")), ("GET", "a", ("X", "y")), ("GET", "/\r\n", ("X", "y")),
        ("get", "/", ("X", "y")), ("G T", "/", ("X", "y")), ("GET", "/", ("X", "y\r\nZ: a")),
        ("GET", "/", ("Content-Length", "5")), ("GET", "/", ("Transfer-Encoding", "chunked")),
        ("GET", "/#a", ("X", "y")), ("GET", "/", ("Connection", "close")),
    ],
)  # fmt: skip
async def test_what_would_frame_anew_is_never_sent(
    method: str, target: str, field: tuple[str, str]
) -> None:
    async with scripted(OK) as (script, port):
        with pytest.raises(ValueError, match="cannot be sent"):
            await client(port).request(method, target, [field])
    assert not script.connections


async def test_our_own_server_and_client_understand_each_other() -> None:
    async def handle(request: Request) -> Response | StreamResponse:
        body = await request.read()
        if request.target == "/stream":
            return StreamResponse(ResponseHead(200), _pieces(body))
        return seen(request, body)

    async with listening(make(handle)) as port:
        asking = client(port)
        for body in (b"", b"x" * 10_000):
            assert (await asking.request("POST", "/", (), body)).body == b"POST / [" + body + b"]"
            assert (await asking.request("POST", "/stream", (), body)).body == body
        head = await asking.request("HEAD", "/")
        assert (head.status, head.body) == (200, b"")
        assert (await asking.request("GET", "/")).body == b"GET / []"
        asking.close()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 1000):
        yield body[at : at + 1000]


@pytest.mark.parametrize("name", GOOD)
async def test_a_response_is_read(name: str) -> None:
    answer, body = GOOD[name]
    async with scripted(answer) as (_, port):
        asking = client(port, body_bytes=90)
        assert (await asking.request("GET", "/")).body == body
        asking.close()


@pytest.mark.parametrize("name", BAD)
async def test_a_response_that_is_malformed_is_none_and_costs_its_connection(name: str) -> None:
    async with scripted(BAD[name], OK) as (script, port):
        asking = client(port, body_bytes=90)
        with pytest.raises(BadResponse) as caught:
            await asking.request("GET", "/")
        assert str(caught.value) == ""
        script.answers = [OK]
        assert (await asking.request("GET", "/")).body == b"ok"
        assert script.connections == 2
        asking.close()


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
        OK.replace(b"1.1", b"1.0"),
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
        OK + b"\r\n",
    ],
    ids=["close", "HTTP/1.0", "another response", "an empty line"],
)
async def test_a_connection_that_may_hold_anything_else_is_not_used_again(answer: bytes) -> None:
    async with scripted(answer, OK) as (script, port):
        asking = client(port)
        for _ in range(2):
            assert (await asking.request("GET", "/")).body == b"ok"
        assert script.connections == 2
        asking.close()


async def test_what_nobody_asked_for_answers_nothing() -> None:
    """Bytes that come while a connection rests would be taken for the next request's answer."""
    sent = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if connections == 1:
            await sent.wait()
            writer.write(OK.replace(b"ok", b"no"))
            await reader.read()
        writer.close()

    async with serving(serve) as port:
        asking = client(port)
        assert (await asking.request("GET", "/")).body == b"ok"
        sent.set()
        await until(lambda: not asking._idle)
        assert (await asking.request("GET", "/")).body == b"ok"
        assert connections == 2
        asking.close()


async def test_a_cancelled_request_leaves_no_answer_behind() -> None:
    half = OK[:-1]
    async with scripted(half, OK) as (script, port):
        asking = client(port)
        waiting = asyncio.create_task(asking.request("GET", "/"))
        await until(lambda: script.received)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not asking._idle
        assert (await asking.request("GET", "/")).body == b"ok"
        assert script.connections == 2
        asking.close()


async def test_a_server_that_hangs_up_without_a_word_is_told_from_a_broken_answer() -> None:
    async with scripted(None, b"HTTP/1.1 2[end]") as (_, port):
        with pytest.raises(Disconnected):
            await client(port).request("GET", "/")
        with pytest.raises(BadResponse):
            await client(port).request("GET", "/")
    with pytest.raises(Unreachable):
        await client(port).request("GET", "/")


async def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    async with scripted(OK + b"[end]", OK) as (script, port):
        asking = client(port)
        await asking.request("GET", "/")
        await until(lambda: script.lost == 1 and not asking._idle)
        assert (await asking.request("GET", "/")).body == b"ok"
        asking.close()


async def test_an_idle_connection_is_closed_by_us_first() -> None:
    async with scripted(OK) as (script, port):
        asking = client(port, idle_seconds=0.02)
        await asking.request("GET", "/")
        await until(lambda: script.lost)
        assert not asking._idle


async def test_there_are_no_more_connections_than_allowed() -> None:
    most, now, go_on = 0, 0, asyncio.Event()

    async def handle(request: Request) -> Response:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await go_on.wait()
        now -= 1
        return seen(request, b"")

    async with listening(make(handle)) as port:
        asking = client(port, connections=3)
        tasks = [asyncio.create_task(asking.request("GET", "/")) for _ in range(10)]
        await until(lambda: now == 3)
        go_on.set()
        assert {response.status for response in await asyncio.gather(*tasks)} == {200}
        assert most == 3
        assert len(asking._idle) == 3
        asking.close()


async def test_a_closed_client_finishes_what_is_under_way() -> None:
    go_on = asyncio.Event()

    async def handle(request: Request) -> Response:
        await go_on.wait()
        return seen(request, b"")

    server = make(handle)
    async with listening(server) as port:
        asking = client(port)
        waiting = asyncio.create_task(asking.request("GET", "/"))
        await until(lambda: any(not each.idle for each in server.connections))
        asking.close()
        go_on.set()
        assert (await waiting).status == 200
        await until(lambda: not server.connections)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_each_end_of_mutual_tls_is_held_to_its_certificate(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    servers, workloads, others = (CertificateAuthority.create(name) for name in "abc")
    write_credential(tmp_path / "server", servers.issue_server())
    write_credential(tmp_path / "elsewhere", servers.issue_server(dns=("other",), ips=()))
    for folder, authority in (("ours", workloads), ("foreign", others)):
        issued = authority.issue_svid("spiffe://cluster.test/ns/one/sa/app")
        write_credential(tmp_path / folder, issued)
    for name, authority in (("a", servers), ("b", workloads), ("c", others)):
        (tmp_path / f"{name}.pem").write_bytes(authority.certificate_pem)

    def ours(folder: str, trusted: str) -> ssl.SSLContext:
        return client_context(KeyPair.in_directory(tmp_path / folder), tmp_path / trusted)

    def theirs(folder: str) -> ssl.SSLContext:
        pair = KeyPair.in_directory(tmp_path / folder)
        return mutual_server_context(pair, tmp_path / "b.pem", lambda _: None)

    async def ask(server: str, tls: ssl.SSLContext) -> int:
        async with listening(make(), theirs(server)) as port:
            asking = client(port, tls)
            try:
                return (await asking.request("POST", "/", (), b"x" * 5000)).status
            finally:
                asking.close()

    async def main() -> None:
        assert await ask("server", ours("ours", "a.pem")) == 200
        with pytest.raises(Untrusted):
            await ask("server", ours("ours", "c.pem"))
        with pytest.raises(Untrusted):
            await ask("elsewhere", ours("ours", "a.pem"))
        with pytest.raises(Disconnected):
            await ask("server", ours("foreign", "a.pem"))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_a_server_that_does_not_finish_its_handshake_is_unreachable() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass

    async with serving(silent) as port:
        tls = ssl.create_default_context()
        asking = Client(Host("127.0.0.1", port), tls, limits=Limits(), connect_seconds=0.05)
        with pytest.raises(Unreachable):
            await asking.request("GET", "/")
