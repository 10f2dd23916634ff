"""ID tokens and userinfo: who signed in, told to the client alone and only where it asked."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import KeySet

from tests.support.deployment import NOTES, Answer, Deployment, deployed
from tests.support.forged_tokens import claims_of, header_of


async def userinfo(world: Deployment, token: str | None, **headers: str) -> Answer:
    sent = headers | ({"Authorization": f"Bearer {token}"} if token is not None else {})
    return await world.call("GET", "/oauth/userinfo", headers=sent)


async def verified(world: Deployment, jwt: str) -> dict[str, Any]:
    """The claims, once the signature was verified as a client does: from the JWKS."""
    published: Any = (await world.call("GET", "/.well-known/jwks.json")).json()
    keys = KeySet.import_key_set(published)
    jws.deserialize_compact(jwt, keys, algorithms=["ES256", "RS256", "Ed25519", "EdDSA"])
    return claims_of(jwt)


async def test_an_id_token_names_the_user_to_the_client(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp openid", nonce="n-0S6_WzA2Mj")
        claims, now = await verified(world, alice.id_token), int(world.clock())
        digest = hashlib.sha256(alice.access_token.encode()).digest()[:16]
        assert claims == {
            "iss": world.issuer,
            "sub": claims_of(alice.access_token)["sub"],
            "aud": alice.client_id,
            "iat": now,
            "exp": now + 300,
            "auth_time": now,
            "nonce": "n-0S6_WzA2Mj",
            "at_hash": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        }
        assert header_of(alice.id_token)["typ"] == "JWT"


async def test_without_openid_there_is_no_id_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp")
        assert alice.id_token == ""
        refused = await userinfo(world, alice.access_token)
        assert (refused.status, refused.json()["error"]) == (403, "insufficient_scope")


async def test_a_request_without_nonce_gets_none(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="openid")
        assert "nonce" not in claims_of(alice.id_token)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc, about the name alone
@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
async def test_other_algorithms_sign_id_tokens_too(tmp_path: Path, algorithm: str) -> None:
    key = (
        rsa.generate_private_key(65537, 2048)
        if algorithm == "RS256"
        else ed25519.Ed25519PrivateKey.generate()
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "other.pem").write_bytes(pem)
    keys = [{"file": "other.pem", "algorithm": algorithm}]
    async with deployed(tmp_path, signingKeys=keys) as world:
        alice = await world.signed_in("alice", scope="openid")
        claims = await verified(world, alice.id_token)
        hashed = hashlib.sha256 if algorithm == "RS256" else hashlib.sha512
        digest = hashed(alice.access_token.encode()).digest()
        half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
        assert claims["at_hash"] == half


async def test_an_id_token_opens_nothing(tmp_path: Path) -> None:
    """One kind of token is never taken for another (A30)."""
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="openid")
        assert (await userinfo(world, alice.id_token)).status == 401
        released = await world.exchange("mcp-servers/notes", alice.id_token)
        assert (released.status, released.json()["error"]) == (400, "invalid_request")


async def test_userinfo_tells_the_subject_and_nothing_more(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp openid")
        answer = await userinfo(world, alice.access_token)
        assert answer.json() == {"sub": claims_of(alice.access_token)["sub"]}
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_userinfo_is_refused_without_a_live_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp openid")
        for token in (None, "", "x", alice.refresh_token, alice.access_token[:-4] + "AAAA"):
            refused = await userinfo(world, token)
            assert (refused.status, refused.json()["error"]) == (401, "invalid_token"), token
            assert refused.headers["WWW-Authenticate"].startswith("Bearer ")
        in_query = f"/oauth/userinfo?access_token={alice.access_token}"
        assert (await world.call("GET", in_query)).status == 401
        fields = {"client_id": alice.client_id, "token": alice.refresh_token}
        await world.call("POST", "/oauth/revoke", data=fields)
        assert (await userinfo(world, alice.access_token)).status == 401, "ended at once"


async def test_the_audience_of_the_access_token_stays_the_resource(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp openid")
        assert claims_of(alice.access_token)["aud"] == NOTES


async def test_userinfo_answers_a_post_with_the_token_in_one_place(tmp_path: Path) -> None:
    """OpenID Connect Core section 5.3.1, RFC 6750 section 2.2."""
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp openid")
        bearer = {"Authorization": f"Bearer {alice.access_token}"}
        body = {"access_token": alice.access_token}
        for options in ({"headers": bearer}, {"data": body}):
            answer = await world.call("POST", "/oauth/userinfo", **options)
            assert answer.json() == {"sub": claims_of(alice.access_token)["sub"]}
        both = await world.call("POST", "/oauth/userinfo", headers=bearer, data=body)
        assert (both.status, both.json()["error"]) == (400, "invalid_request")
        assert (await world.call("POST", "/oauth/userinfo")).status == 401
        assert (await world.call("POST", "/oauth/userinfo", data={"a": "b"})).status == 401
