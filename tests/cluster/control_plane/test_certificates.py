import stat
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tests.cluster.control_plane.certificates import Authority, KeyPair, service_account_keys


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "kubernetes-ca")


def _loaded(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def _trusting(authority: Authority) -> PolicyBuilder:
    now = datetime.now(UTC)
    return PolicyBuilder().store(Store([_loaded(authority.files)])).time(now)


def test_a_serving_certificate_is_good_for_its_hosts_alone(authority: Authority) -> None:
    made = _loaded(authority.server("kube-apiserver", "kubernetes", "127.0.0.1"))
    for name in (x509.DNSName("kubernetes"), x509.IPAddress(ip_address("127.0.0.1"))):
        _trusting(authority).build_server_verifier(name).verify(made, [])
    elsewhere = _trusting(authority).build_server_verifier(x509.DNSName("example.com"))
    with pytest.raises(VerificationError):
        elsewhere.verify(made, [])


def test_a_certificate_of_one_authority_proves_nothing_to_another(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "etcd").mkdir()
    other = Authority(tmp_path / "etcd", "etcd-ca")
    made = _loaded(other.server("etcd", "localhost"))
    verifier = _trusting(authority).build_server_verifier(x509.DNSName("localhost"))
    with pytest.raises(VerificationError):
        verifier.verify(made, [])


def test_a_client_certificate_names_a_user_and_its_groups(authority: Authority) -> None:
    made = _loaded(authority.client("system:node:one", "system:nodes"))
    assert made.subject.rfc4514_string() == "CN=system:node:one,O=system:nodes"
    roles = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(roles) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_private_keys_are_readable_by_their_owner_alone(
    authority: Authority, tmp_path: Path
) -> None:
    keys = [authority.files.key, authority.client("admin").key, service_account_keys(tmp_path).key]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
