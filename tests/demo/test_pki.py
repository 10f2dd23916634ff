"""The development PKI, judged by OpenSSL's strict mode in real TLS 1.3 handshakes."""

import ssl
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from demo.pki import CertificateAuthority, Issued, write_credential

SPIFFE_ID = "spiffe://example.org/ns/demo/mcpserver/notes"


@pytest.fixture(scope="module")
def servers() -> CertificateAuthority:
    return CertificateAuthority.create("servers")


@pytest.fixture(scope="module")
def workloads() -> CertificateAuthority:
    return CertificateAuthority.create("workloads")


def test_strict_mutual_tls_succeeds_and_shows_the_server_exactly_one_spiffe_id(
    tmp_path: Path, servers: CertificateAuthority, workloads: CertificateAuthority
) -> None:
    server = _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, servers.issue_server(), trusts=workloads)
    svid = workloads.issue_svid(SPIFFE_ID)
    client = _context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, svid, trusts=servers)

    peer, version = _handshake(client, server, "127.0.0.1")

    assert peer["subjectAltName"] == (("URI", SPIFFE_ID),)
    assert version == "TLSv1.3"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_server_certificate_answers_for_loopback_by_name_and_by_address(
    tmp_path: Path, servers: CertificateAuthority, workloads: CertificateAuthority, host: str
) -> None:
    server = _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, servers.issue_server(), trusts=workloads)
    svid = workloads.issue_svid(SPIFFE_ID)

    _handshake(_context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, svid, trusts=servers), server, host)


def test_a_workload_cannot_pass_for_the_authserver(
    tmp_path: Path, servers: CertificateAuthority, workloads: CertificateAuthority
) -> None:
    impostor = workloads.issue_svid(SPIFFE_ID)
    server = _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, impostor, trusts=workloads)
    client = _context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, impostor, trusts=servers)

    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(client, server, "127.0.0.1")


def test_a_server_certificate_is_no_client_certificate(
    tmp_path: Path, servers: CertificateAuthority
) -> None:
    issued = servers.issue_server()
    server = _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, issued, trusts=servers)
    client = _context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, issued, trusts=servers)

    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        _handshake(client, server, "127.0.0.1")


def test_an_expired_svid_is_refused(
    tmp_path: Path, servers: CertificateAuthority, workloads: CertificateAuthority
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    expired = workloads.issue_svid(SPIFFE_ID, lifetime=timedelta(hours=1), now=long_ago)
    server = _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, servers.issue_server(), trusts=workloads)
    client = _context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, expired, trusts=servers)

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        _handshake(client, server, "127.0.0.1")


def test_an_svid_has_the_shape_the_spiffe_standard_asks_for(
    workloads: CertificateAuthority,
) -> None:
    leaf = x509.load_pem_x509_certificate(workloads.issue_svid(SPIFFE_ID).certificate_pem)

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    roles = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert not leaf.subject.rdns
    assert names.critical
    assert [name.value for name in names.value] == [SPIFFE_ID]
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert ExtendedKeyUsageOID.CLIENT_AUTH in roles.value
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(hours=24)


def test_keys_are_written_for_this_user_alone_and_can_be_replaced(
    tmp_path: Path, workloads: CertificateAuthority
) -> None:
    folder = tmp_path / "credential"
    write_credential(folder, workloads.issue_svid(SPIFFE_ID))
    renewed = workloads.issue_svid(SPIFFE_ID)
    write_credential(folder, renewed)

    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert (folder / "tls.key").read_bytes() == renewed.key_pem
    assert {file.name for file in folder.iterdir()} == {"tls.crt", "tls.key"}


def _context(
    folder: Path, role: ssl._SSLMethod, issued: Issued, *, trusts: CertificateAuthority
) -> ssl.SSLContext:
    context = ssl.SSLContext(role)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=trusts.certificate_pem.decode("ascii"))
    write_credential(folder, issued)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def _handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, host: str
) -> tuple[Mapping[str, object], str | None]:
    """Shake hands in memory; what the server saw of the client, and the protocol version."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, server_hostname=host)
    callee = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [caller, callee]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    return callee.getpeercert() or {}, callee.version()
