"""What clients discover: exact issuer, every path they look at, no nulls, public keys only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.deployment import deployed

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def values_in(document: Any) -> Iterator[Any]:
    yield document
    if isinstance(document, dict | list):
        for value in document.values() if isinstance(document, dict) else document:
            yield from values_in(value)


async def test_both_documents_name_the_exact_issuer_and_every_endpoint(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        oauth = await world.call("GET", "/.well-known/oauth-authorization-server")
        openid = await world.call("GET", "/.well-known/openid-configuration")
        assert oauth.status == 200
        assert oauth.json() == openid.json()
        found, issuer = oauth.json(), world.issuer
        assert not any(value is None for value in values_in(found))
        algorithms = ["ES256", "RS256", "EdDSA"]
        methods = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
        assert found == {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/oauth/authorize",
            "token_endpoint": f"{issuer}/oauth/token",
            "registration_endpoint": f"{issuer}/oauth/register",
            "revocation_endpoint": f"{issuer}/oauth/revoke",
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "scopes_supported": ["mcp", "offline_access", "openid"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "introspection_endpoint": f"{issuer}/oauth/introspect",
            "introspection_endpoint_auth_methods_supported": methods[1:],
            "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
            "userinfo_endpoint": f"{issuer}/oauth/userinfo",
            "claims_supported": [
                "iss",
                "sub",
                "aud",
                "exp",
                "iat",
                "auth_time",
                "nonce",
                "at_hash",
            ],
            "client_id_metadata_document_supported": True,
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "refresh_token_expiration_types_supported": ["authorization", "token_timeout"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server/tenant",
        "/tenant/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
    ],
)
async def test_an_issuer_with_a_path_is_found_where_clients_look(tmp_path: Path, path: str) -> None:
    issuer = "https://auth.example.com/tenant"
    async with deployed(tmp_path, issuer=issuer) as world:
        found = (await world.call("GET", path)).json()
        assert found["issuer"] == issuer
        assert found["token_endpoint"] == f"{issuer}/oauth/token"
        assert (await world.call("GET", "/tenant/.well-known/jwks.json")).status == 200
        for elsewhere in ("/.well-known/oauth-authorization-server", "/.well-known/jwks.json"):
            assert (await world.call("GET", elsewhere)).status == 404


async def test_without_registration_there_is_neither_route_nor_mention(tmp_path: Path) -> None:
    closed = {"registration": {"enabled": False}}
    async with deployed(tmp_path, clients=closed) as world:
        found = (await world.call("GET", "/.well-known/oauth-authorization-server")).json()
        assert "registration_endpoint" not in found
        assert (await world.call("POST", "/oauth/register", json={})).status == 404


async def test_every_signing_key_is_published_with_public_members_only(tmp_path: Path) -> None:
    keys: dict[str, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey] = {
        "rsa.pem": rsa.generate_private_key(65537, 2048),
        "ed.pem": ed25519.Ed25519PrivateKey.generate(),
    }
    for name, key in keys.items():
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / name).write_bytes(pem)
    signing = [
        {"file": "signing.pem", "algorithm": "ES256"},
        {"file": "rsa.pem", "algorithm": "RS256"},
        {"file": "ed.pem", "algorithm": "EdDSA"},
    ]
    async with deployed(tmp_path, signingKeys=signing) as world:
        answer = await world.call("GET", "/.well-known/jwks.json")
        published = answer.json()["keys"]
        assert [key["alg"] for key in published] == ["ES256", "RS256", "EdDSA"]
        assert {key["use"] for key in published} == {"sig"}
        assert len({key["kid"] for key in published}) == 3
        assert not PRIVATE_MEMBERS & {member for key in published for member in key}
        found = (await world.call("GET", "/.well-known/openid-configuration")).json()
        assert found["id_token_signing_alg_values_supported"] == ["ES256", "EdDSA", "RS256"]


async def test_discovery_may_be_cached_for_a_few_minutes_only(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        for path in ("/.well-known/oauth-authorization-server", "/.well-known/jwks.json"):
            assert (await world.call("GET", path)).headers["Cache-Control"] == "public, max-age=300"


async def test_what_can_be_read_answers_head_like_get(tmp_path: Path) -> None:
    """RFC 9110 section 9.1; monitors use it."""
    async with deployed(tmp_path) as world:
        for path in (
            "/.well-known/oauth-authorization-server",
            "/.well-known/openid-configuration",
            "/.well-known/jwks.json",
            "/oauth/style.css",
            "/favicon.ico",
            "/",
        ):
            got, head = await world.call("GET", path), await world.call("HEAD", path)
            assert (got.status, head.status, head.text) == (200, 200, ""), path
            assert head.headers["Content-Length"] == str(len(got.text.encode())), path
            assert head.headers["Content-Type"] == got.headers["Content-Type"]
