"""What an operator may say of an upstream, and what each member does to the calls there."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from authserver.config.loader import load
from chassis.process import ConfigurationError
from demo.pki import CertificateAuthority
from tests.fakes.upstream import saying
from tests.support.deployment import configuration_of, write_material
from tests.support.refreshes import EXPIRED, MUST_SIGN_IN, UNAVAILABLE, rig
from tests.support.workloads import verdict


def faults(folder: Path, **members: Any) -> list[tuple[str, str]]:
    write_material(folder, CertificateAuthority.create("s"), CertificateAuthority.create("w"))
    raw: dict[str, Any] = configuration_of(folder, "http://127.0.0.1:1", "http://127.0.0.1:2")
    raw["upstreams"][0] |= members
    file = folder / "authserver.yaml"
    file.write_text(yaml.safe_dump(raw))
    try:
        load(file)
    except ConfigurationError as refused:
        return [(fault.path, fault.problem) for fault in refused.faults]
    return []


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a reserved parameter": ({"tokenParameters": {"code": "x"}}, "code: set by us"),
    "a reserved parameter of a refresh": (
        {"refreshParameters": {"client_secret": "x"}},
        "client_secret: set by us",
    ),
    "a proxy with a password": ({"proxy": "http://u:p@proxy:3128"}, "must be an HTTP proxy"),
    "a proxy that speaks TLS": ({"proxy": "https://proxy:3128"}, "must be an HTTP proxy"),
    "a proxy without a port": ({"proxy": "http://proxy"}, "must be an HTTP proxy"),
    "many tenants": (
        {"issuer": "https://login.microsoftonline.com/common/v2.0"},
        "common stands for many tenants",
    ),
    "a former token endpoint of oidc": (
        {
            "former": [
                {"clientId": "x", "tokenEndpoint": "https://x/t", "until": "2026-12-01T00:00:00Z"}
            ]
        },
        "found by its issuer",
    ),
}


@pytest.mark.parametrize(("members", "problem"), BAD.values(), ids=BAD)
def test_what_cannot_be_meant_is_a_fault(
    tmp_path: Path, members: dict[str, Any], problem: str
) -> None:
    ((place, said),) = faults(tmp_path, **members)
    assert place == f"upstreams[0].{next(iter(members))}"
    assert problem in said


def authority(*, usage: bool, key_id: bool, critical: bool) -> bytes:
    """A CA's certificate, as `openssl req -x509` and older tools make them."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corp CA")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=critical)
    )
    if usage:
        flags = dict.fromkeys(
            (
                "digital_signature", "content_commitment", "key_encipherment",
                "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
                "decipher_only",
            ),
            False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **flags), critical=True)
    if key_id:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("usage", "key_id", "critical", "problem"),
    [
        (True, True, True, None),
        (False, True, True, "certificate 1 (CN=Corp CA) has no keyUsage extension"),
        (True, False, True, "certificate 1 (CN=Corp CA) has no subjectKeyIdentifier"),
        (
            True,
            True,
            False,
            "certificate 1 (CN=Corp CA) has basicConstraints that are not critical",
        ),
    ],
)
def test_an_authority_that_openssl_would_refuse_is_a_fault(
    tmp_path: Path, usage: bool, key_id: bool, critical: bool, problem: str | None
) -> None:
    (tmp_path / "corp.pem").write_bytes(authority(usage=usage, key_id=key_id, critical=critical))
    found = faults(tmp_path, caFile="corp.pem")
    if problem is None:
        assert found == []
    else:
        ((place, said),) = found
        assert place == "upstreams[0].caFile"
        assert problem in said


@pytest.mark.parametrize(
    ("said", "body"),
    [
        ("my_word", {"error": "MY_WORD"}),
        ("status=BAD_REFRESH_TOKEN", {"status": "BAD_REFRESH_TOKEN", "message": "no"}),
        ("error.code=190", {"error": {"type": "OAuthException", "code": 190}}),
    ],
)
async def test_an_operator_knows_how_a_provider_says_that_a_grant_is_over(
    tmp_path: Path, said: str, body: dict[str, Any]
) -> None:
    for folder in ("known", "unknown"):
        (tmp_path / folder).mkdir()
    async with rig(tmp_path / "known", deadGrantErrors=[said]) as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(saying(400, body))
        assert verdict(await rigged.exchange()) == MUST_SIGN_IN
    async with rig(tmp_path / "unknown") as rigged:
        rigged.world.clock.advance(EXPIRED)
        rigged.upstream.then(saying(400, body))
        assert verdict(await rigged.exchange()) == UNAVAILABLE


async def test_more_parameters_reach_the_token_endpoint(tmp_path: Path) -> None:
    async with rig(
        tmp_path, tokenParameters={"expires": "yes"}, refreshParameters={"scope": "openid"}
    ) as rigged:
        assert rigged.upstream.forms[-1]["expires"] == "yes"
        rigged.world.clock.advance(EXPIRED)
        await rigged.token()
        assert rigged.upstream.forms[-1]["scope"] == "openid"
        assert "expires" not in rigged.upstream.forms[-1]
