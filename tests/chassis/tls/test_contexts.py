"""Credentials from files: what is wrong with the new ones never harms who goes on with the old."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

from chassis.tls.contexts import (
    CredentialFault,
    KeyPair,
    client_context,
    mutual_server_context,
    server_context,
)
from chassis.tls.reload import ContextReloader
from chassis.tls.self_handshake import Certificate, verify_key_pair
from demo.pki import CertificateAuthority, Issued, write_credential
from tests.support.svid_certificates import AUTHORITY, Shape, dns, self_signed, uri

SPIFFE_ID = "spiffe://example.org/ns/mcp-servers/mcpserver/notes"
SERVERS, WORKLOADS = (CertificateAuthority.create(name) for name in ("servers", "workloads"))


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(hours=10)


@dataclass
class Server:
    """A mutual-TLS server that says which serial it saw, and keeps its connections."""

    folder: Path
    reloading: ContextReloader
    port: int = 0
    refused: list[str] = field(default_factory=list)

    async def connect(
        self, tls: ssl.SSLContext
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname="localhost"
        )

    async def greeted(self, tls: ssl.SSLContext) -> bool:
        """Whether the server lets this client in: with TLS 1.3 only the first answer tells."""
        reader = writer = None
        try:
            reader, writer = await self.connect(tls)
            return await hears(reader, writer)
        except (ssl.SSLError, OSError):
            return False
        finally:
            if writer is not None:
                writer.close()


async def hears(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"hello\n")
    return await reader.readline() == b"hello\n"


@asynccontextmanager
async def mutual_server(folder: Path) -> AsyncIterator[Server]:
    write_credential(folder, SERVERS.issue_server())
    trusted = folder / "workloads.pem"
    trusted.write_bytes(WORKLOADS.certificate_pem)
    pair, refused = KeyPair.in_directory(folder), list[str]()

    def build() -> tuple[ssl.SSLContext, Certificate]:
        context = mutual_server_context(pair, trusted, lambda why: refused.append(str(why.reason)))
        return context, verify_key_pair(pair, as_client=False)

    reloading = ContextReloader("server", build, (pair.certificate, pair.key, trusted))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.readline():
            writer.write(said)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=reloading.context)
    async with server:
        yield Server(folder, reloading, server.sockets[0].getsockname()[1], refused)


def client(folder: Path, issued: Issued, trusted: CertificateAuthority = SERVERS) -> ssl.SSLContext:
    write_credential(folder, issued)
    (folder / "trusted.pem").write_bytes(trusted.certificate_pem)
    return client_context(KeyPair.in_directory(folder), folder / "trusted.pem")


# What the files may not be.


def pair_in(folder: Path, certificate: bytes, key: bytes) -> KeyPair:
    (folder / "tls.crt").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key)
    return KeyPair.in_directory(folder)


ONE, OTHER = WORKLOADS.issue_svid(SPIFFE_ID), WORKLOADS.issue_svid(SPIFFE_ID)
EXPIRED = WORKLOADS.issue_svid(SPIFFE_ID, now=long_ago(), lifetime=timedelta(hours=1))
FAULTY: list[tuple[str, Callable[[], tuple[bytes, bytes]], str]] = [
    ("another's key", lambda: (ONE.chain, OTHER.key_pem), "KEY_VALUES_MISMATCH"),
    ("no certificate", lambda: (b"", ONE.key_pem), "empty"),
    ("no key", lambda: (ONE.chain, b""), "empty"),
    ("half a certificate", lambda: (ONE.chain[:200], ONE.key_pem), "no certificate"),
    ("half a key", lambda: (ONE.chain, ONE.key_pem[:60]), "tls.key"),
    ("not PEM", lambda: (b"\xff\xfe", ONE.key_pem), "not PEM"),
    ("a key for a certificate", lambda: (ONE.key_pem, ONE.key_pem), "no certificate"),
    ("a certificate for a key", lambda: (ONE.chain, ONE.chain), "tls.key"),
    ("an expired certificate", lambda: (EXPIRED.chain, EXPIRED.key_pem), "expired"),
    ("one of tomorrow", lambda: shaped(starts=timedelta(days=1)), "not yet valid"),
    ("one for servers", lambda: shaped(purposes=(Purpose.SERVER_AUTH,)), "purpose"),
    ("one that may not sign", lambda: shaped(usages=("key_encipherment",)), "certificate"),
]


def shaped(**changes: object) -> tuple[bytes, bytes]:
    shape = Shape(**changes)  # type: ignore[arg-type]
    issued = self_signed(AUTHORITY).issue(shape).issued()
    return issued.chain, issued.key_pem


@pytest.mark.parametrize(
    ("files", "problem"), [row[1:] for row in FAULTY], ids=[row[0] for row in FAULTY]
)
def test_a_credential_that_does_not_work_is_named_with_its_fault(
    tmp_path: Path, files: Callable[[], tuple[bytes, bytes]], problem: str
) -> None:
    pair = pair_in(tmp_path, *files())
    with pytest.raises(CredentialFault, match=problem) as fault:
        verify_key_pair(pair, as_client=True)
    assert str(tmp_path) in str(fault.value)
    assert "-----" not in str(fault.value)


def test_a_certificate_for_clients_is_none_for_a_server(tmp_path: Path) -> None:
    pair = pair_in(tmp_path, *shaped(purposes=(Purpose.CLIENT_AUTH,)))
    assert verify_key_pair(pair, as_client=True).uris == (SPIFFE_ID,)
    with pytest.raises(CredentialFault, match="purpose"):
        verify_key_pair(pair, as_client=False)


def test_a_proven_certificate_says_what_it_carries(tmp_path: Path) -> None:
    proven = verify_key_pair(pair_in(tmp_path, ONE.chain, ONE.key_pem), as_client=True)
    assert proven.uris == (SPIFFE_ID,)
    assert proven.not_after - proven.not_before == 4 * 3600 + 60


@pytest.mark.parametrize("first", ["certificate", "key"])
def test_one_file_may_hold_both_in_either_order(tmp_path: Path, first: str) -> None:
    parts = [ONE.chain, ONE.key_pem] if first == "certificate" else [ONE.key_pem, ONE.chain]
    (tmp_path / "credential-bundle.pem").write_bytes(b"".join(parts))
    assert verify_key_pair(KeyPair.in_directory(tmp_path), as_client=True).uris == (SPIFFE_ID,)


def test_a_mounted_folder_is_read_through_one_version_of_it(tmp_path: Path) -> None:
    for name, issued in (("..1", ONE), ("..2", OTHER)):
        write_credential(tmp_path / name, issued)
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    pair = KeyPair.in_directory(tmp_path)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert {pair.certificate.parent.name, pair.key.parent.name} == {"..1"}
    assert {KeyPair.in_directory(tmp_path).key.parent.name} == {"..2"}


LEAF = self_signed(Shape(subject="x"))
BUNDLES: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("spaces", b" \n"),
    ("no PEM", b"hello"),
    ("half a certificate", WORKLOADS.certificate_pem[:300]),
    ("a CA and half of another", WORKLOADS.certificate_pem + SERVERS.certificate_pem[:300]),
    ("a leaf that signed itself", LEAF.pem()),
    ("a CA and a leaf of it", WORKLOADS.certificate_pem + ONE.certificate_pem),
    ("a key", ONE.key_pem),
    ("bytes", b"\xff\x00"),
]


@pytest.mark.parametrize("bundle", [row[1] for row in BUNDLES], ids=[row[0] for row in BUNDLES])
def test_only_a_bundle_of_authorities_is_trusted(tmp_path: Path, bundle: bytes) -> None:
    """C24: a leaf among the anchors would be trusted as itself."""
    pair = pair_in(tmp_path, ONE.chain, ONE.key_pem)
    (tmp_path / "trusted.pem").write_bytes(bundle)
    trusted = tmp_path / "trusted.pem"
    with pytest.raises(CredentialFault, match=r"trusted\.pem"):
        client_context(pair, trusted)
    with pytest.raises(CredentialFault, match=r"trusted\.pem"):
        mutual_server_context(pair, trusted, lambda _: None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialFault, match=r"tls\.crt: no such file"):
        verify_key_pair(KeyPair.in_directory(tmp_path), as_client=True)
    (tmp_path / "tls.crt").write_bytes(ONE.chain)
    with pytest.raises(CredentialFault, match=r"tls\.key: no such file"):
        server_context(KeyPair.in_directory(tmp_path))


# Files that change under a running server.


def changed_to(certificate: bytes | None, key: bytes | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name, content in (("tls.crt", certificate), ("tls.key", key)):
            if content is not None:
                (folder / name).write_bytes(content)

    return change


def trusting(bundle: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "workloads.pem").write_bytes(bundle)

    return change


NEW = SERVERS.issue_server()
STALE = SERVERS.issue_server(now=long_ago(), lifetime=timedelta(hours=1))
UGLY: list[tuple[str, Callable[[Path], None]]] = [
    ("certificate first", changed_to(NEW.chain, None)),
    ("key first", changed_to(None, NEW.key_pem)),
    ("half the certificate", changed_to(NEW.chain[:100], NEW.key_pem)),
    ("half the key", changed_to(NEW.chain, NEW.key_pem[:50])),
    ("empty files", changed_to(b"", b"")),
    ("an expired one", changed_to(STALE.chain, STALE.key_pem)),
    ("one for clients only", changed_to(*shaped(purposes=(Purpose.CLIENT_AUTH,)))),
    ("the certificate removed", lambda folder: (folder / "tls.crt").unlink()),
    ("the key removed", lambda folder: (folder / "tls.key").unlink()),
    ("the CAs removed", lambda folder: (folder / "workloads.pem").unlink()),
    ("the CAs emptied", trusting(b"")),
    ("a leaf as CA", trusting(LEAF.pem())),
]  # fmt: skip


@pytest.mark.parametrize("ugly", [row[1] for row in UGLY], ids=[row[0] for row in UGLY])
async def test_the_old_credential_serves_until_the_new_one_is_whole(
    tmp_path: Path, ugly: Callable[[Path], None]
) -> None:
    async with mutual_server(tmp_path) as server:
        tls = client(tmp_path / "client", ONE)
        before = server.reloading.certificate.serial
        ugly(tmp_path)
        for _ in range(2):
            assert not server.reloading.poll()
            assert await server.greeted(tls)
        assert server.reloading.certificate.serial == before
        write_credential(tmp_path, NEW)
        (tmp_path / "workloads.pem").write_bytes(WORKLOADS.certificate_pem)
        assert server.reloading.poll()
        assert server.reloading.certificate.serial != before
        assert server.reloading.generation == 2
        assert await server.greeted(tls)


async def test_nothing_is_rebuilt_while_nothing_changes(tmp_path: Path) -> None:
    async with mutual_server(tmp_path) as server:
        assert not server.reloading.poll()
        assert server.reloading.generation == 1


async def test_a_removed_authority_is_not_trusted_while_its_connections_go_on(
    tmp_path: Path,
) -> None:
    async with mutual_server(tmp_path) as server:
        successor = CertificateAuthority.create("workloads")
        old = client(tmp_path / "old", ONE)
        new = client(tmp_path / "new", successor.issue_svid(SPIFFE_ID))
        assert (await server.greeted(old), await server.greeted(new)) == (True, False)
        reader, writer = await server.connect(old)
        assert await hears(reader, writer)
        (tmp_path / "workloads.pem").write_bytes(successor.certificate_pem)
        assert server.reloading.poll()
        assert (await server.greeted(old), await server.greeted(new)) == (False, True)
        assert await hears(reader, writer)
        writer.close()


async def test_a_new_certificate_meets_new_connections_only(tmp_path: Path) -> None:
    async with mutual_server(tmp_path) as server:
        tls = client(tmp_path / "client", ONE)
        reader, writer = await server.connect(tls)
        write_credential(tmp_path, NEW)
        assert server.reloading.poll()
        assert await hears(reader, writer)
        writer.close()
        _, later = await server.connect(tls)
        seen = later.get_extra_info("peercert")["serialNumber"]
        later.close()
        assert seen == server.reloading.certificate.serial


async def test_a_client_context_follows_its_files_too(tmp_path: Path) -> None:
    async with mutual_server(tmp_path) as server:
        folder = tmp_path / "client"
        client(folder, ONE)
        pair = KeyPair.in_directory(folder)

        def build() -> tuple[ssl.SSLContext, Certificate]:
            return client_context(pair, folder / "trusted.pem"), verify_key_pair(
                pair, as_client=True
            )

        reloads: list[bool] = []
        reloading = ContextReloader(
            "client", build, (pair.certificate, pair.key), on_reload=reloads.append
        )
        write_credential(folder, EXPIRED)
        assert not reloading.poll()
        assert await server.greeted(reloading.context)
        write_credential(folder, OTHER)
        assert reloading.poll()
        assert await server.greeted(reloading.context)
        assert reloads == [False, True]


# Handshakes.


async def test_there_is_nothing_to_resume(tmp_path: Path) -> None:
    """A resumed session would skip the look at the certificate."""
    async with mutual_server(tmp_path) as server:
        tls = client(tmp_path / "client", ONE)
        reader, writer = await server.connect(tls)
        assert await hears(reader, writer)
        tunnel = writer.get_extra_info("ssl_object")
        assert tunnel.version() == "TLSv1.3"
        assert tunnel.session is None or not tunnel.session.has_ticket
        assert server.reloading.context.current.num_tickets == 0
        writer.close()


async def test_tls_1_2_clients_of_a_public_listener_get_no_ticket_either(tmp_path: Path) -> None:
    write_credential(tmp_path, SERVERS.issue_server())
    (tmp_path / "trusted.pem").write_bytes(SERVERS.certificate_pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(tmp_path / "trusted.pem")
    tls.maximum_version = ssl.TLSVersion.TLSv1_2

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    public = server_context(KeyPair.in_directory(tmp_path))
    async with await asyncio.start_server(silent, "127.0.0.1", 0, ssl=public) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="localhost"
        )
        assert not writer.get_extra_info("ssl_object").session.has_ticket
        writer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
async def test_the_mutual_server_speaks_tls_1_3_only(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async with mutual_server(tmp_path) as server:
        tls = client(tmp_path / "client", ONE)
        tls.minimum_version = tls.maximum_version = version
        assert not await server.greeted(tls)
        assert server.refused


@pytest.mark.parametrize("who", ["nobody", "a stranger", "an expired one", "one for servers"])
async def test_who_is_refused_is_reported_with_the_reason(tmp_path: Path, who: str) -> None:
    issued = {
        "a stranger": CertificateAuthority.create("workloads").issue_svid(SPIFFE_ID),
        "an expired one": EXPIRED,
        "one for servers": WORKLOADS.issue_server(),
    }.get(who)
    async with mutual_server(tmp_path) as server:
        if issued is None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.load_verify_locations(cadata=SERVERS.certificate_pem.decode())
        else:
            tls = client(tmp_path / "client", issued)
        assert not await server.greeted(tls)
        assert len(server.refused) == 1


@pytest.mark.parametrize(
    "wrong", ["another authority", "another name", "a workload's certificate", "a strange leaf"]
)
async def test_a_client_talks_to_the_server_it_was_told_of_only(tmp_path: Path, wrong: str) -> None:
    servers = self_signed(AUTHORITY)
    shapes = {
        "another authority": (WORKLOADS.certificate_pem, Shape(names=(dns("localhost"),))),
        "another name": (servers.pem(), Shape(names=(dns("elsewhere"),))),
        "a workload's certificate": (servers.pem(), Shape(names=(uri(SPIFFE_ID),))),
        "a strange leaf": (servers.pem(), Shape(names=(dns("localhost"),), authority_id=False)),
    }
    trusted, shape = shapes[wrong]
    write_credential(tmp_path / "server", servers.issue(shape).issued())
    (tmp_path / "trusted.pem").write_bytes(trusted)
    write_credential(tmp_path / "client", ONE)
    tls = client_context(KeyPair.in_directory(tmp_path / "client"), tmp_path / "trusted.pem")
    public = server_context(KeyPair.in_directory(tmp_path / "server"))

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0, ssl=public) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")
