"""Over TLS: who the peer is, for exactly as long as its connection; and the same answers."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from chassis.http1.request import Request
from chassis.http1.response import Response
from chassis.http1.server import Server
from chassis.tls.contexts import KeyPair, client_context, mutual_server_context
from demo.pki import CertificateAuthority, write_credential
from tests.chassis.http1.harness import OK, answer_of, connected, listening, make, until, vanish

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Contexts = tuple[ssl.SSLContext, dict[str, ssl.SSLContext], dict[str, bytes]]


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    """A server's context, two workloads' contexts, and the workloads' certificates (DER)."""
    servers, workloads = (CertificateAuthority.create(name) for name in ("servers", "workloads"))
    write_credential(tmp_path / "server", servers.issue_server())
    (tmp_path / "servers.pem").write_bytes(servers.certificate_pem)
    (tmp_path / "workloads.pem").write_bytes(workloads.certificate_pem)
    ours, theirs = {}, {}
    for name in ("one", "two"):
        issued = workloads.issue_svid(f"spiffe://cluster.test/ns/{name}/sa/app")
        write_credential(tmp_path / name, issued)
        pair = KeyPair.in_directory(tmp_path / name)
        ours[name] = client_context(pair, tmp_path / "servers.pem")
        theirs[name] = ssl.PEM_cert_to_DER_cert(issued.certificate_pem.decode())
    pair = KeyPair.in_directory(tmp_path / "server")
    server = mutual_server_context(pair, tmp_path / "workloads.pem", lambda _: None)
    return server, ours, theirs


def remembering() -> tuple[Server, list[bytes | None]]:
    """A server that reads each peer's certificate once, and what it read."""
    read: list[bytes | None] = []

    async def handle(request: Request) -> Response:
        connection = request.connection
        if connection.peer is None:
            connection.peer = connection.peer_certificate()
            read.append(connection.peer)
        return Response(OK, b"%d" % len(connection.peer or b""))

    return make(handle), read


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_what_is_known_of_a_peer_lives_as_long_as_its_connection(
    contexts: Contexts, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    server_tls, ours, theirs = contexts
    server, read = remembering()

    async def main() -> None:
        async with listening(server, server_tls) as port:
            for name in ("one", "two", "one"):
                async with connected(port, ours[name]) as (reader, writer):
                    for _ in range(3):
                        writer.write(GET)
                        assert (await answer_of(reader))[1] == b"%d" % len(theirs[name])
                await until(lambda: not server.connections)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert read == [theirs["one"], theirs["two"], theirs["one"]]


async def test_without_tls_there_is_no_certificate() -> None:
    server, read = remembering()
    async with listening(server) as port, connected(port) as (reader, writer):
        writer.write(GET)
        assert (await answer_of(reader))[1] == b"0"
        [connection] = server.connections
        assert connection.peername[0] == connection.sockname[0] == "127.0.0.1"
        assert connection.sockname[1] == port
        vanish(writer)
        await until(lambda: not server.connections)
        assert connection.peername is connection.sockname is connection.peer_certificate() is None
    assert read == [None]


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("sent", [GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
                                  b"\x00\r\n\r\n", GET + b"rubbish \r\n\r\n"])  # fmt: skip
def test_a_connection_that_ends_is_closed_as_tls_wants_it(
    contexts: Contexts, loop: Callable[[], asyncio.AbstractEventLoop], sent: bytes
) -> None:
    """A peer that sees no close_notify must take the answer for cut off."""
    server_tls, ours, _ = contexts
    server = make(limits={"linger_seconds": 0.02})

    async def main() -> None:
        async with listening(server, server_tls) as port:
            async with connected(port, ours["one"]) as (reader, writer):
                writer.write(sent)
                answer = await reader.read()
                assert b"\r\nConnection: close\r\n" in answer
            await until(lambda: not server.connections)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_peer_that_closes_right_behind_its_request_is_no_failure(
    contexts: Contexts, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Its close_notify is read while we close: asyncio's transport is gone after a second close."""
    server_tls, ours, _ = contexts
    server, failures = make(), list[dict[str, object]]()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
        async with listening(server, server_tls) as port:
            for request in (GET, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")):
                async with connected(port, ours["one"]) as (_, writer):
                    writer.write(request)
                    writer.close()
                await until(lambda: not server.connections)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert not failures


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_body_over_tls_is_read_whole(
    contexts: Contexts, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    server_tls, ours, _ = contexts
    body = bytes(range(256)) * 2000

    async def main() -> None:
        async with (
            listening(make(), server_tls) as port,
            connected(port, ours["one"]) as (reader, writer),
        ):
            for _ in range(2):
                writer.write(
                    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
                assert (await answer_of(reader))[1] == b"POST / [" + body + b"]"

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_a_peer_without_a_certificate_sends_no_request(
    contexts: Contexts, tmp_path: Path
) -> None:
    server_tls, _, _ = contexts
    server, read = remembering()
    stranger = ssl.create_default_context(cafile=str(tmp_path / "servers.pem"))
    async with listening(server, server_tls) as port:
        try:
            async with connected(port, stranger) as (reader, writer):
                writer.write(GET)
                assert await reader.read() == b""
        except (ConnectionError, ssl.SSLError):
            pass
    assert read == []
