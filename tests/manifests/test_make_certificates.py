"""`make-certificates`: certificates where there is no cert-manager."""

import shutil
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.manifests.rendering import MANIFESTS


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return Path(
        shutil.copy2(MANIFESTS / "components/self-managed-serving/make-certificates", tmp_path)
    )


def _run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False)


def test_a_workload_gets_a_certificate_that_the_authserver_accepts(script: Path) -> None:
    done = _run(script, "workload", "mcp-servers", "github", "example.org")
    assert done.returncode == 0, done.stderr
    folder = script.parent / "generated/workloads/mcp-servers/github"
    leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((folder.parents[2] / "ca.crt").read_bytes())
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [
        "spiffe://example.org/ns/mcp-servers/mcpserver/github"
    ]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=1)
    key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
    assert key.public_key() == leaf.public_key()
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600
    assert "-n mcp-servers create secret tls github-tokenward" in done.stdout


def test_a_second_certificate_is_of_the_same_authority(script: Path) -> None:
    assert _run(script).returncode == 0
    authority = (script.parent / "generated/ca.crt").read_bytes()
    assert _run(script, "workload", "a", "b").returncode == 0
    assert (script.parent / "generated/ca.crt").read_bytes() == authority


@pytest.mark.parametrize(
    "arguments",
    [
        ("workload",),
        ("workload", "a"),
        ("workload", "../a", "b"),
        ("workload", "a", "B"),
        ("workload", "a", "-b"),
        ("workload", "a", "b" * 64),
        ("workload", "a", "b", "x,DNS:evil"),
        ("surplus",),
    ],
)
def test_bad_names_are_bad_usage_and_make_nothing(script: Path, arguments: tuple[str, ...]) -> None:
    assert _run(script, *arguments).returncode == 2
    assert not (script.parent / "generated").exists()
