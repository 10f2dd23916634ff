"""Both ends of the wire: what the controller issues, and what others accept of it."""

import ssl
import subprocess
import tempfile
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from authserver.internal import client_ca
from authserver.internal.openssl_check import problem_of_openssl
from authserver.internal.svid import SvidReader
from chassis.spiffe_id import Workload
from controller.issuing import authority, leaves, rotation
from controller.issuing.authority import Authority, InvalidAuthority, new_key
from tests.controller.samples import NOW
from tests.support.svid_certificates import authority as intermediate_shape
from tests.support.svid_certificates import self_signed

DAY = timedelta(days=1)
YEAR = timedelta(days=365)
WORKLOAD = Workload("mcp-servers", "notes")
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def workloads(trust_domain: str = "example.org") -> Authority:
    purpose = authority.workloads(trust_domain)
    return authority.create(purpose, key=new_key(), now=NOW, lifetime=YEAR)


def servers() -> Authority:
    purpose = authority.servers("tokenward-system", "cluster.local")
    return authority.create(purpose, key=new_key(), now=NOW, lifetime=YEAR)


def verifies(issuer: Authority, leaf: bytes, purpose: str) -> bool:
    """What OpenSSL says of a leaf, in its strict mode, at NOW."""
    with tempfile.TemporaryDirectory() as folder:
        ca, file = Path(folder, "ca.pem"), Path(folder, "leaf.pem")
        ca.write_bytes(issuer.certificate_pem)
        file.write_bytes(leaf)
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime"]
        command += [str(int(NOW.timestamp())), "-CAfile", str(ca), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0


def issue(by: Authority, *names: x509.GeneralName, role: x509.ObjectIdentifier = CLIENT) -> bytes:
    key = new_key().public_key()
    return by.issue(key, names, role, now=NOW, lifetime=DAY).chain_pem


@pytest.mark.parametrize("trust_domain", ["cluster.local", "example.org", "a_b.example"])
def test_a_workloads_certificate_is_an_svid_that_the_authserver_reads(trust_domain: str) -> None:
    by = workloads(trust_domain)
    assert client_ca.problem_of(by.certificate.public_bytes(Encoding.DER)) is None
    template = leaves.workload_template(WORKLOAD, trust_domain, DAY, DAY / 3)
    credential, issued = leaves.issue(template, by, NOW, new_key)
    reader = SvidReader(trust_domain, max_lifetime=86400, own_names=())
    svid = reader.read(credential.leaf.public_bytes(Encoding.DER))
    assert svid.workload == WORKLOAD
    assert svid.valid(NOW.timestamp())
    assert svid.serial == issued.serial == credential.serial
    if "_" not in trust_domain:  # OpenSSL knows no such host
        assert verifies(by, credential.chain_pem, "sslclient")


@pytest.mark.parametrize(
    "names",
    [
        (x509.UniformResourceIdentifier("spiffe://other.org/ns/a/mcpserver/b"),),
        (x509.UniformResourceIdentifier("spiffe://sub.example.org/ns/a/mcpserver/b"),),
        (
            x509.UniformResourceIdentifier("spiffe://example.org/ns/a/mcpserver/b"),
            x509.DNSName("tokenward-authserver-internal.tokenward-system.svc"),
        ),
        (x509.IPAddress(IPv4Address("127.0.0.1")),),
    ],
)
def test_a_stolen_authority_of_workloads_vouches_for_nothing_else(
    names: tuple[x509.GeneralName, ...],
) -> None:
    by = workloads()
    good = x509.UniformResourceIdentifier("spiffe://example.org/ns/a/mcpserver/b")
    assert verifies(by, issue(by, good), "sslclient")
    assert not verifies(by, issue(by, *names), "sslclient")


def test_the_two_authorities_do_not_do_each_others_work() -> None:
    by_workloads, by_servers = workloads(), servers()
    host = x509.DNSName("main-internal.tokenward-system.svc")
    uri = x509.UniformResourceIdentifier("spiffe://example.org/ns/a/mcpserver/b")
    assert verifies(by_servers, issue(by_servers, host, role=SERVER), "sslserver")
    assert not verifies(by_servers, issue(by_servers, uri), "sslclient")
    assert not verifies(by_workloads, issue(by_workloads, uri, role=SERVER), "sslserver")
    foreign = x509.DNSName("kubernetes.default.svc")
    assert not verifies(by_servers, issue(by_servers, foreign, role=SERVER), "sslserver")


def test_an_authority_signs_no_other_authority() -> None:
    constraints = workloads().certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.path_length == 0
    assert problem_of_openssl(workloads().certificate) is None


def test_a_leaf_does_not_outlive_its_authority() -> None:
    by = authority.create(
        authority.workloads("example.org"), key=new_key(), now=NOW, lifetime=timedelta(hours=2)
    )
    template = leaves.workload_template(WORKLOAD, "example.org", DAY, DAY / 3)
    credential, _ = leaves.issue(template, by, NOW, new_key)
    assert credential.ends == by.certificate.not_valid_after_utc
    with pytest.raises(InvalidAuthority):
        leaves.issue(template, by, NOW + timedelta(hours=3), new_key)


def test_a_credential_is_a_usable_tls_pair() -> None:
    template = leaves.server_template(["main-internal.tokenward-system.svc"], DAY, DAY / 3)
    credential, _ = leaves.issue(template, servers(), NOW, new_key)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate.write_bytes(credential.chain_pem)
        key.write_bytes(credential.key_pem)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


# Renewal.


def good(credential: leaves.Credential, by: Authority, after: timedelta, who: str = "u") -> bool:
    template = leaves.workload_template(WORKLOAD, "example.org", DAY, DAY / 3)
    return leaves.is_good(credential, template, by, who, NOW + after)


def test_a_credential_is_renewed_at_two_thirds_of_its_life_with_jitter() -> None:
    by = workloads()
    template = leaves.workload_template(WORKLOAD, "example.org", DAY, DAY / 3)
    credential, _ = leaves.issue(template, by, NOW, new_key)
    assert good(credential, by, timedelta(hours=14))
    assert not good(credential, by, timedelta(hours=16))
    times = {leaves.renewal(credential, template, f"u{n}") for n in range(50)}
    assert len(times) > 40
    assert timedelta(hours=1) < max(times) - min(times) <= timedelta(hours=2)


@pytest.mark.parametrize(
    "template",
    [
        leaves.workload_template(Workload("mcp-servers", "other"), "example.org", DAY, DAY / 3),
        leaves.workload_template(WORKLOAD, "other.org", DAY, DAY / 3),
        leaves.workload_template(WORKLOAD, "example.org", DAY / 2, DAY / 6),
    ],
)
def test_a_credential_that_is_not_what_is_wanted_is_replaced(template: leaves.Template) -> None:
    by = workloads()
    wanted = leaves.workload_template(WORKLOAD, "example.org", DAY, DAY / 3)
    credential, _ = leaves.issue(wanted, by, NOW, new_key)
    assert leaves.is_good(credential, wanted, by, "u", NOW)
    assert not leaves.is_good(credential, template, by, "u", NOW)
    assert not leaves.is_good(credential, wanted, workloads(), "u", NOW)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("tls.key"),
        lambda data: data.pop("tls.crt"),
        lambda data: data.update({"tls.key": b""}),
        lambda data: data.update({"tls.crt": b"-----BEGIN CERTIFICATE-----\nAA==\n"}),
        lambda data: data.update({"tls.key": authority.key_pem(new_key())}),
    ],
)
def test_a_spoilt_secret_holds_no_credential(spoil: Callable[[dict[str, bytes]], object]) -> None:
    template = leaves.workload_template(WORKLOAD, "example.org", DAY, DAY / 3)
    credential, _ = leaves.issue(template, workloads(), NOW, new_key)
    data = {"tls.crt": credential.chain_pem, "tls.key": credential.key_pem}
    assert leaves.read(data) is not None
    spoil(data)
    assert leaves.read(data) is None


# The authority's own rotation.

TURN = rotation.Rotation(authority.workloads("example.org"), 300 * DAY, DAY)


def as_secret(state: rotation.AuthorityState) -> dict[str, object]:
    return {
        "data": rotation.encoded(rotation.data_of(state)),
        "metadata": {"annotations": rotation.annotations_of(state)},
    }


def test_an_authority_is_replaced_with_both_trusted_all_along() -> None:
    state = rotation.first(TURN, NOW, new_key)
    old = state.current.certificate
    bundle = [old]
    seen = [state]
    now = NOW
    while now < NOW + 260 * DAY:
        now += timedelta(hours=6)
        following = rotation.advance(state, TURN, now, new_key, held_up=False)
        # Each change survives the way through the Secret.
        following = rotation.read(as_secret(following))
        bundle = authority.certificates(following.bundle)
        signer = following.current.certificate
        assert signer in bundle
        if following.bundle != state.bundle or signer != state.current.certificate:
            seen.append(following)
        # Whoever signs now was trusted at the look before already.
        if signer != state.current.certificate:
            assert signer in authority.certificates(state.bundle)
            assert old in bundle
        state = following
    counts = [len(authority.certificates(one.bundle)) for one in seen]
    assert counts == [1, 2, 2, 1]
    assert state.current.certificate != old


def test_a_successor_waits_for_peers_without_the_bundle_but_not_for_ever() -> None:
    state = rotation.first(TURN, NOW, new_key)
    due = NOW + 201 * DAY
    announced = rotation.advance(state, TURN, due, new_key, held_up=True)
    assert announced.upcoming is not None
    later = due + 20 * DAY
    assert rotation.advance(announced, TURN, later, new_key, held_up=True) is announced
    taken = rotation.advance(announced, TURN, later, new_key, held_up=False)
    assert taken.current.certificate == announced.upcoming.certificate
    end = state.current.certificate.not_valid_after_utc
    forced = rotation.advance(announced, TURN, end - DAY / 2, new_key, held_up=True)
    assert forced.current.certificate == announced.upcoming.certificate


def test_an_intermediate_of_an_enterprise_signs_with_its_chain() -> None:
    root = self_signed(intermediate_shape())
    below = root.issue(intermediate_shape(path_length=0))
    issued = below.issued()
    secret = {
        "data": rotation.encoded(
            {"tls.crt": issued.chain, "tls.key": issued.key_pem, "ca.crt": root.pem()}
        )
    }
    state = rotation.read_foreign(secret)
    assert state.bundle == root.pem()
    template = leaves.workload_template(WORKLOAD, "example.org", timedelta(hours=1), DAY / 72)
    now = below.certificate.not_valid_before_utc + timedelta(minutes=5)
    credential, _ = leaves.issue(template, state.current, now, new_key)
    assert len(authority.certificates(credential.chain_pem)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tls.key": b"x"}, "no certificate and unencrypted key"),
        ({"tls.key": authority.key_pem(new_key())}, "key of another certificate"),
        ({"tls.crt": b""}, "no certificate"),
    ],
)
def test_an_authority_that_cannot_sign_is_refused_without_its_key(
    change: dict[str, bytes], words: str
) -> None:
    data = rotation.data_of(rotation.first(TURN, NOW, new_key)) | change
    with pytest.raises(InvalidAuthority, match=words) as refused:
        rotation.read({"data": rotation.encoded(data)})
    assert "PRIVATE KEY" not in str(refused.value)


def test_a_leaf_is_no_authority() -> None:
    template = leaves.workload_template(WORKLOAD, "example.org", DAY, DAY / 3)
    credential, _ = leaves.issue(template, workloads(), NOW, new_key)
    with pytest.raises(InvalidAuthority, match="CA"):
        authority.load(credential.chain_pem, credential.key_pem)
