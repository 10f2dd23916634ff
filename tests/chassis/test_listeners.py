"""Listeners: whoever does not finish a handshake is cut off, and `::` means every address."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from aiohttp import ClientError, ClientSession

from chassis.http1.listener import Listener
from chassis.http1.request import Request
from chassis.http1.response import Response, ResponseHead
from chassis.http1.server import Server
from chassis.sockets import BindFailed
from chassis.tls.contexts import KeyPair, client_context, mutual_server_context, server_context
from demo.pki import CertificateAuthority, write_credential
from tests.support.svid_certificates import AUTHORITY, Pair, Shape, dns, rsa_key, self_signed

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
CLIENT_HELLO_BEGINS = b"\x16\x03\x01\x02\x00\x01"


def hello(_: Request) -> Response:
    return Response(ResponseHead(200), b"hello")


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[list[tuple[str, int]]]:
    """What was bound; the listener is served by the function that serves every process."""
    bound = await listener.bind(0.0)
    try:
        yield bound.addresses
    finally:
        await bound.cleanup()


def tls(folder: Path) -> ssl.SSLContext:
    write_credential(folder, CertificateAuthority.create("servers").issue_server())
    return server_context(KeyPair.in_directory(folder))


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("sent", [b"", CLIENT_HELLO_BEGINS], ids=["nothing", "half a hello"])
def test_a_handshake_that_stalls_is_cut_off(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop], sent: bytes
) -> None:
    async def stall() -> None:
        listener = Listener(
            "test", "127.0.0.1", 0, Server(hello), tls(tmp_path), handshake_seconds=0.1
        )
        async with listening(listener) as [(host, port)]:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(sent)
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(stall())


async def test_a_handshake_has_ten_seconds_unless_somebody_says_otherwise() -> None:
    assert Listener("test", "127.0.0.1", 0, Server(hello)).handshake_seconds == 10


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_chain_that_is_too_long_is_closed_before_any_http_and_reported(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """C21, on the loops that processes run on."""
    root, refused, served = self_signed(AUTHORITY), list[str](), list[None]()
    issuer, chain = root, list[Pair]()
    for number in range(3):
        issuer = issuer.issue(replace(AUTHORITY, subject=f"below {number}"))
        chain.insert(0, issuer)
    write_credential(tmp_path / "long", issuer.issue().issued(*chain))
    write_credential(tmp_path / "short", chain[1].issue().issued(*chain[1:]))
    (tmp_path / "workloads.pem").write_bytes(root.pem())
    servers = CertificateAuthority.create("servers")
    write_credential(tmp_path, servers.issue_server())
    (tmp_path / "servers.pem").write_bytes(servers.certificate_pem)
    mutual = mutual_server_context(
        KeyPair.in_directory(tmp_path),
        tmp_path / "workloads.pem",
        lambda why: refused.append(str(getattr(why, "verify_message", why))),
    )

    def serve(request: Request) -> Response:
        served.append(None)
        return hello(request)

    async def ask(who: str) -> bool:
        listener = Listener("test", "127.0.0.1", 0, Server(serve), mutual)
        ours = client_context(KeyPair.in_directory(tmp_path / who), tmp_path / "servers.pem")
        async with listening(listener) as [(host, port)], ClientSession() as http:
            try:
                async with http.get(f"https://{host}:{port}/", ssl=ours) as answer:
                    return answer.status == 200
            except ClientError:
                return False

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(ask("short"))
        assert (refused, len(served)) == ([], 1)
        assert not runner.run(ask("long"))
        assert len(served) == 1
        assert set(refused) == {"certificate chain unknown or too long"}


needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")


@needs_ipv6
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_every_address_means_both_families_on_one_port(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def ask() -> None:
        async with (
            listening(Listener("test", "::", 0, Server(hello))) as [(host, port)],
            ClientSession() as http,
        ):
            assert host == "::"
            for address in ("127.0.0.1", "[::1]"):
                async with http.get(f"http://{address}:{port}/") as answer:
                    assert await answer.text() == "hello"

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(ask())


@pytest.mark.parametrize("why", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, None])
async def test_without_ipv6_every_address_is_every_ipv4_address(
    monkeypatch: pytest.MonkeyPatch, why: int | None
) -> None:
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: object) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError(why, "no IPv6")
        return create(address)

    monkeypatch.setattr("socket.has_dualstack_ipv6", lambda: why is not None)
    monkeypatch.setattr("socket.create_server", without_ipv6)
    async with listening(Listener("test", "::", 0, Server(hello))) as [(host, _)]:
        assert host == "0.0.0.0"


@needs_ipv6
async def test_a_port_in_use_is_no_lack_of_ipv6() -> None:
    """Somebody has it on IPv6 alone; we do not make do with IPv4 then."""
    with socket.create_server(("::", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindFailed, match=f"port {port} on :: is already in use"):
            async with listening(Listener("test", "::", port, Server(hello))):
                pass


@pytest.mark.parametrize("bits", [1024, 2048])
async def test_a_client_takes_no_server_of_a_weak_authority(tmp_path: Path, bits: int) -> None:
    """C31 from the sidecar's side: it cannot read keys, and leaves that to the handshake."""
    root = self_signed(replace(AUTHORITY, new_key=rsa_key(bits)))
    write_credential(tmp_path / "server", root.issue(Shape(names=(dns("localhost"),))).issued())
    write_credential(tmp_path / "client", self_signed().issue().issued())
    (tmp_path / "trusted.pem").write_bytes(root.pem())
    server = server_context(KeyPair.in_directory(tmp_path / "server"))
    client = client_context(KeyPair.in_directory(tmp_path / "client"), tmp_path / "trusted.pem")
    listener = Listener("test", "127.0.0.1", 0, Server(hello), server)
    async with listening(listener) as [(host, port)]:
        connecting = asyncio.open_connection(host, port, ssl=client, server_hostname="localhost")
        if bits < 2048:
            with pytest.raises(ssl.SSLCertVerificationError, match="too weak"):
                await connecting
        else:
            _, writer = await connecting
            writer.close()


async def test_a_listener_of_every_address_is_none_for_loopback_only() -> None:
    listener = Listener("test", "::", 0, Server(hello), loopback_only=True)
    with pytest.raises(BindFailed, match="not loopback"):
        async with listening(listener):
            pass
