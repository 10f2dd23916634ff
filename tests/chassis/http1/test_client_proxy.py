"""Tunnels through a CONNECT proxy: what is asked, what is checked, and what is no tunnel."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from chassis.http1.no_response import ProxyRefused, Unreachable, Untrusted
from chassis.http1.outgoing import RequestHead
from demo.pki import CertificateAuthority, write_credential
from tests.chassis.http1.harness import close, listening, make
from tests.chassis.http1.scripted import LOOPS, OK, serving

GET = RequestHead("GET", "/", "localhost")


class Proxy:
    """Opens tunnels to one port of this machine, whatever is asked for."""

    def __init__(self, port: int) -> None:
        self.port, self.heads = port, list[bytes]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        there, thither = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        await asyncio.gather(_copy(reader, thither), _copy(there, writer))
        await close(thither)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65536):
            writer.write(part)
    except ConnectionError:
        pass
    writer.close()


def asking(host: Host, proxy: int, tls: ssl.SSLContext | None, seconds: float = 20) -> Client:
    return Client(
        host, tls, limits=Limits(), connect_seconds=seconds, proxy=Host("127.0.0.1", proxy)
    )


@asynccontextmanager
async def api(folder: Path) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    authority = CertificateAuthority.create("api")
    write_credential(folder, authority.issue_server())
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    async with listening(make(), tls) as port:
        yield port, ssl.create_default_context(cafile=folder / "ca.pem")


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_tls_ends_at_the_api_and_not_at_the_proxy(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        async with api(tmp_path) as (port, tls):
            proxy = Proxy(port)
            async with serving(proxy.serve) as proxy_port:
                client = asking(Host("localhost", 443), proxy_port, tls)
                for _ in range(2):
                    response = await client.stream(GET)
                    assert (response.status, await response.read(99)) == (200, b"GET / []")
                assert proxy.heads == [
                    b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"
                ]
                client.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_a_certificate_of_another_host_is_refused_behind_a_proxy(tmp_path: Path) -> None:
    async with api(tmp_path) as (port, tls), serving(Proxy(port).serve) as proxy_port:
        client = asking(Host("api.test", 443), proxy_port, tls)
        with pytest.raises(Untrusted):
            await client.stream(GET)


async def test_without_tls_the_tunnel_is_the_connection() -> None:
    async with listening(make()) as port, serving(Proxy(port).serve) as proxy_port:
        client = asking(Host("app.test", 80), proxy_port, None)
        assert await (await client.stream(GET)).read(99) == b"GET / []"
        client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n",
        b"HTTP/1.1 100 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nmore",
        b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 20_000,
        OK,
        b"",
    ],
    ids=lambda answer: answer[:20].decode(),
)
async def test_a_proxy_that_does_not_open_a_tunnel_is_refused(answer: bytes) -> None:
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if answer:
            received.extend(await reader.read())

    async with serving(serve) as port:
        with pytest.raises(ProxyRefused):
            await asking(Host("app.test", 80), port, None).stream(GET)
    assert b"GET" not in received


async def test_a_silent_proxy_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as port:
        with pytest.raises(Unreachable):
            await asking(Host("app.test", 80), port, None, seconds=0.05).stream(GET)
    with pytest.raises(Unreachable):
        await asking(Host("app.test", 80), port, None).stream(GET)
