"""The client's TLS: versions, ends, broken records, and who waits for whom."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chassis.http1.client import Client, Host
from chassis.http1.limits import Limits
from chassis.http1.no_response import BadResponse, Disconnected, Unreachable, Untrusted
from chassis.http1.outgoing import OutgoingBody, RequestHead
from demo.pki import CertificateAuthority, write_credential
from tests.chassis.http1.harness import close, listening, make, until
from tests.chassis.http1.scripted import CHUNKED, LOOPS, OK, serving

GET = RequestHead("GET", "/", "localhost")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@pytest.fixture(scope="module")
def credential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("tls"))
    authority = CertificateAuthority.create("api")
    write_credential(folder, authority.issue_server())
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    return folder


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    serving_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving_tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return serving_tls, ssl.create_default_context(cafile=folder / "ca.pem")


def client(port: int, tls: ssl.SSLContext) -> Client:
    return Client(Host("localhost", port), tls, limits=Limits(), connect_seconds=20)


@asynccontextmanager
async def tls_server(folder: Path, serve: Serve) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    serving_tls, tls = contexts(folder)
    open_ = list[asyncio.StreamWriter]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.append(writer)
        await serve(reader, writer)  # type: ignore[misc]

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=serving_tls)
    try:
        yield server.sockets[0].getsockname()[1], tls
    finally:
        server.close()
        for writer in open_:
            await close(writer)
        await server.wait_closed()


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_work_and_connections_are_kept(
    credential: Path, version: ssl.TLSVersion, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        serving_tls, tls = contexts(credential)
        serving_tls.maximum_version = version
        server = make()
        async with listening(server, serving_tls) as port:
            asking = client(port, tls)
            for size in (0, 1, 16_384, 16_385, 300_000):
                response = await asking.stream(RequestHead("POST", "/", "a"), b"x" * size)
                assert len(await response.read(400_000)) == size + len(b"POST / []")
            (connection,) = asking._idle
            assert connection.peer_certificate()
            assert len(server.connections) == 1
            asking.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_a_server_that_says_it_is_done_in_the_middle_gave_no_whole_response(
    credential: Path,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"2\r\nok\r\n")
        writer.close()

    async with tls_server(credential, serve) as (port, tls):
        response = await client(port, tls).stream(GET)
        with pytest.raises(BadResponse):
            await response.read(99)


async def test_an_idle_connection_that_its_server_closes_is_not_used(credential: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    async with tls_server(credential, serve) as (port, tls):
        asking = client(port, tls)
        for _ in range(2):
            assert await (await asking.stream(GET)).read(9) == b"ok"
            await until(lambda: not asking._idle)


async def test_a_record_that_does_not_decrypt_ends_the_connection(credential: Path) -> None:
    serving_tls, tls = contexts(credential)
    broken = asyncio.Event()
    async with listening(make(), serving_tls) as there:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, forth = await asyncio.open_connection("127.0.0.1", there)

            async def to_client() -> None:
                while part := await back.read(65536):
                    writer.write(part)

            copying = asyncio.create_task(to_client())
            while part := await reader.read(65536):
                if broken.is_set():
                    copying.cancel()
                    writer.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
                    break
                forth.write(part)
            await asyncio.wait((copying,))
            await close(forth)

        async with serving(relay) as port:
            asking = client(port, tls)
            assert (await asking.stream(GET)).status == 200
            broken.set()
            with pytest.raises((BadResponse, Disconnected)):
                await asking.stream(GET)
            assert not asking._idle


@pytest.mark.parametrize("sent", [b"HTTP/1.1 400 x\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
async def test_what_is_no_tls_is_untrusted(credential: Path, sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(sent)
        await reader.read()

    _, tls = contexts(credential)
    async with serving(serve) as port:
        with pytest.raises(Untrusted):
            await client(port, tls).stream(GET)


async def test_a_server_that_hangs_up_in_the_handshake_is_unreachable(credential: Path) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(100)

    _, tls = contexts(credential)
    async with serving(serve) as port:
        with pytest.raises(Unreachable):
            await client(port, tls).stream(GET)


async def test_both_sides_are_held_back_over_tls(credential: Path) -> None:
    """A peer in the same process would hide it: what was written and not read stays bounded."""
    whole, written, taken, go_on = 16 * 2**20, 0, 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        size = 0
        while size < whole:
            size += len(await reader.read(65536))
        writer.write(OK.replace(b"Length: 2", b"Length: %d" % whole).removesuffix(b"ok"))
        while written < whole:
            writer.write(b"x" * 65536)
            written += 65536
            await writer.drain()
        await reader.read()

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < whole:
            taken += 65536
            yield b"x" * 65536

    async def settled(count: Callable[[], int]) -> int:
        before = -1
        while before != count() or not count():
            before = count()
            for _ in range(200):
                await asyncio.sleep(0)
        return before

    async with tls_server(credential, serve) as (port, tls):
        asking = client(port, tls)
        body = OutgoingBody(source(), whole)
        waiting = asyncio.create_task(asking.stream(RequestHead("POST", "/", "a"), body))
        assert await settled(lambda: taken) < whole
        go_on.set()
        response = await waiting
        assert await settled(lambda: written) < whole
        size = 0
        while piece := await response.next():
            size += len(piece)
        assert size == whole
        asking.close()
