"""Our own JWTs at the door that relies on them: whatever is not exactly ours is refused alike."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authserver.tokens.signing_keys import SigningKey, load_signing_key
from tests.support.deployment import NOTES, Deployment, deployed
from tests.support.forged_tokens import (
    Key,
    changed,
    claims_of,
    decoded,
    encoded,
    header_of,
    private_key,
    private_pem,
    signed,
)
from tests.support.workloads import (
    DENIED,
    UNLIMITED,
    Line,
    audited,
    forged,
    line,
    reconfigure,
    replica,
    verdict,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Forge:
    """A valid token, every key of the deployment, and a sidecar that shows what comes of it."""

    world: Deployment
    sidecar: Line
    jwt: str
    keys: dict[str, SigningKey]

    @property
    def header(self) -> dict[str, Any]:
        return header_of(self.jwt)

    @property
    def payload(self) -> bytes:
        return decoded(self.jwt.split(".")[1])

    def private(self, algorithm: str = "ES256") -> Any:
        return private_key(self.world.folder / FILES[algorithm])

    def with_header(self, key: Key = None, **changes: Any) -> str:
        signing_key = self.private() if key is None else key
        return signed(changed(self.header, changes), self.payload, signing_key)


FILES = {"ES256": "signing.pem", "RS256": "RS256.pem", "EdDSA": "EdDSA.pem"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forge]:
    """A deployment with three signing keys, of which the ES256 one signs."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / FILES["RS256"]).write_bytes(private_pem(rsa.generate_private_key(65537, 2048)))
    (folder / FILES["EdDSA"]).write_bytes(private_pem(ed25519.Ed25519PrivateKey.generate()))
    signing = [{"file": file, "algorithm": algorithm} for algorithm, file in FILES.items()]
    async with deployed(folder, signingKeys=signing, limits=UNLIMITED) as world:
        jwt = (await world.signed_in()).access_token
        keys = {name: load_signing_key(folder / file, name) for name, file in FILES.items()}
        async with line(world) as sidecar:
            yield Forge(world, sidecar, jwt, keys)


def public_pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def keyed_with_our_public_key(algorithm: str) -> Callable[[Forge], str]:
    def token(forge: Forge) -> str:
        kid = forge.keys[algorithm].kid
        return forge.with_header(public_pem(forge.private(algorithm)), alg="HS256", kid=kid)

    return token


def raw_header(text: str) -> Callable[[Forge], str]:
    """A header as text, in which KID stands for the right key."""

    def token(forge: Forge) -> str:
        header = text.replace("KID", forge.header["kid"]).encode()
        return signed(header, forge.payload, forge.private())

    return token


def with_header(**changes: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.with_header(**changes)


def with_embedded_key(**member: Any) -> Callable[[Forge], str]:
    """Signed by a stranger who names the stranger's key, or by us with such a member."""

    def token(forge: Forge) -> str:
        return forge.with_header(ec.generate_private_key(ec.SECP256R1()), **member)

    return token


def truncated(change: Callable[[list[str]], list[str]]) -> Callable[[Forge], str]:
    return lambda forge: ".".join(change(forge.jwt.split(".")))


def signed_by(algorithm: str, **header: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.with_header(forge.private(algorithm), **header)


def unsigned(algorithm: str) -> Callable[[Forge], str]:
    return lambda forge: signed(changed(forge.header, {"alg": algorithm}), forge.payload, None)


def named(key: str, algorithm: str, kid_of: str | None = None) -> Callable[[Forge], str]:
    """By the key of one algorithm, under the name of another algorithm or key."""
    return lambda forge: forge.with_header(
        forge.private(key), alg=algorithm, kid=forge.keys[kid_of or key].kid
    )


def another_user(payload: str) -> str:
    """The claims of a JWT with another `sub`, as its part of it."""
    return encoded(changed(json.loads(decoded(payload)), {"sub": "somebody"}))


def around(payload: bytes) -> Callable[[Forge], str]:
    return lambda forge: signed(changed(forge.header, {}), payload, forge.private())


JWK = {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}
GOOD = '"alg":"ES256","kid":"KID","typ":"at+jwt"'
DEEP = "{" + GOOD + ',"x":' + "[" * 2000 + "]" * 2000 + "}"
TOKENS: list[tuple[str, Callable[[Forge], str], str]] = [
    # A27: algorithms
    ("none", unsigned("none"), "wrong_algorithm"),
    ("none in other case", unsigned("NonE"), "wrong_algorithm"),
    ("HS256 with our EC key as PEM", keyed_with_our_public_key("ES256"), "wrong_algorithm"),
    ("HS256 with our RSA key as PEM", keyed_with_our_public_key("RS256"), "wrong_algorithm"),
    ("no algorithm", with_header(alg=None), "wrong_algorithm"),
    ("an algorithm that is no text", with_header(alg=["ES256"]), "wrong_algorithm"),
    ("ES384", with_header(alg="ES384"), "wrong_algorithm"),
    ("our RSA key, called RS512", named("RS256", "RS512"), "wrong_algorithm"),
    ("our RSA key, called PS256", named("RS256", "PS256"), "wrong_algorithm"),
    ("ES256 by the name of an RSA key", named("ES256", "ES256", kid_of="RS256"), "wrong_algorithm"),
    ("RS256 by the name of an EC key", signed_by("RS256", alg="RS256"), "wrong_algorithm"),
    ("signed by another of our keys", signed_by("EdDSA"), "bad_signature"),
    ("signed by a stranger", with_embedded_key(), "bad_signature"),
    # A27: form
    ("no signature", truncated(lambda p: [p[0], p[1], ""]), "bad_signature"),
    ("another signature", truncated(lambda p: [p[0], p[1], encoded(b"\1" * 64)]), "bad_signature"),
    ("an empty one", truncated(lambda p: [p[0], p[1], encoded(b"\0" * 64)]), "bad_signature"),
    ("two parts", truncated(lambda p: p[:2]), "not_a_compact_jws"),
    ("five parts", truncated(lambda p: [*p, "", ""]), "not_a_compact_jws"),
    ("no header", truncated(lambda p: ["", *p[1:]]), "not_a_compact_jws"),
    ("a header that is no base64url", truncated(lambda p: ["+/+/", *p[1:]]), "not_a_compact_jws"),
    ("another payload", truncated(lambda p: [p[0], encoded(b"{}"), p[2]]), "bad_claims"),
    ("another user in it", truncated(lambda p: [p[0], another_user(p[1]), p[2]]), "bad_signature"),
    ("letters beyond ASCII", lambda f: f.jwt + "\u00e9", "not_a_compact_jws"),
    ("white space around", lambda f: f" {f.jwt}", "not_a_compact_jws"),
    ("more than 8 KiB", lambda f: forged(f.world, f.jwt, scope="x" * 8192), "not_a_compact_jws"),
    ("a header that is a list", raw_header("[]"), "not_a_compact_jws"),
    ("alg twice", raw_header('{"alg":"none",' + GOOD + "}"), "not_a_compact_jws"),
    ("kid twice", raw_header("{" + GOOD + ',"kid":"KID"}'), "not_a_compact_jws"),
    ("a deep header", raw_header(DEEP), "not_a_compact_jws"),
    ("a header with NaN", raw_header("{" + GOOD + ',"x":NaN}'), "not_a_compact_jws"),
    # A27: headers that choose a key or change the meaning; honestly signed all the same
    *((f"a {name}", with_header(**{name: value}), "forbidden_header") for name, value in {
        "crit": ["exp"], "jku": "https://x.example/jwks", "jwk": JWK, "x5u": "https://x.example",
        "x5c": ["AA=="], "b64": True, "zip": "DEF",
    }.items()),
    ("a stranger's jwk", with_embedded_key(jwk=JWK, kid=None), "forbidden_header"),
    # A28: kid
    ("no kid", with_header(kid=None), "unknown_kid"),
    ("an empty kid", with_header(kid=""), "unknown_kid"),
    ("a path as kid", with_header(kid="../../signing.pem"), "unknown_kid"),
    ("SQL as kid", with_header(kid="' OR 1=1 --"), "unknown_kid"),
    ("a URL as kid", with_header(kid="https://x.example/key"), "unknown_kid"),
    ("a NUL in the kid", lambda f: f.with_header(kid=f.header["kid"] + "\0"), "unknown_kid"),
    ("a long kid", with_header(kid="x" * 5000), "unknown_kid"),
    ("a number as kid", with_header(kid=0), "unknown_kid"),
    ("a list as kid", with_header(kid=["x"]), "unknown_kid"),
    # A30: types
    ("no typ", with_header(typ=None), "wrong_typ"),
    ("an ID token", with_header(typ="JWT"), "wrong_typ"),
    ("a logout token", with_header(typ="logout+jwt"), "wrong_typ"),
    ("a client assertion", with_header(typ="client-authentication+jwt"), "wrong_typ"),
    ("a request object", with_header(typ="oauth-authz-req+jwt"), "wrong_typ"),
    ("a DPoP proof", with_header(typ="dpop+jwt"), "wrong_typ"),
    ("a list as typ", with_header(typ=["at+jwt"]), "wrong_typ"),
    ("an object as typ", with_header(typ={"at+jwt": 1}), "wrong_typ"),
    ("a number as typ", with_header(typ=1), "wrong_typ"),
    # payloads
    ("a payload that is no JSON", around(b"x"), "payload_not_json"),
    ("a payload that is a list", around(b"[]"), "payload_not_json"),
    ("a claim twice", around(b'{"sub":"x","sub":"x"}'), "payload_not_json"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("token", "reason"), [row[1:] for row in TOKENS], ids=[row[0] for row in TOKENS]
)
async def test_a_token_that_is_not_ours_in_form_key_and_kind_is_refused(
    forge: Forge, caplog: pytest.LogCaptureFixture, token: Callable[[Forge], str], reason: str
) -> None:
    with audited(caplog) as trail:
        answer = await forge.sidecar.exchange(token(forge))
    assert verdict(answer) == DENIED
    assert trail.reason == f"jwt_{reason}"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_every_configured_key_verifies_with_its_own_algorithm(
    forge: Forge, algorithm: str
) -> None:
    kid = forge.keys[algorithm].kid
    token = forge.with_header(forge.private(algorithm), alg=algorithm, kid=kid)
    assert (await forge.sidecar.exchange(token)).status == 200


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT"])
async def test_an_access_token_is_known_by_its_type(forge: Forge, typ: str) -> None:
    assert (await forge.sidecar.exchange(forge.with_header(typ=typ))).status == 200


TIMES, TEXTS = ("exp", "iat", "nbf"), ("iss", "sub", "aud", "jti", "client_id", "tsid")
NO_CLAIM = [None, True, ["x"], {"x": "y"}]  # None: the claim is missing


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        *((claim, value) for claim in (*TIMES, *TEXTS, "scope") for value in NO_CLAIM),
        *((claim, value) for claim in TEXTS for value in ("", 7, "x" * 2049, "a\nb", "a\u202eb")),
        ("scope", 7),
    ],
    ids=lambda value: ascii(value)[:20],
)
async def test_no_claim_may_be_missing_or_of_another_kind(
    forge: Forge, caplog: pytest.LogCaptureFixture, claim: str, value: Any
) -> None:
    with audited(caplog) as trail:
        answer = await forge.sidecar.exchange(edited(forge, claim, value))
    assert verdict(answer) == DENIED
    assert trail.reason == ("jwt_wrong_issuer" if claim == "iss" else "jwt_bad_claims")


def edited(forge: Forge, claim: str, value: Any) -> str:
    return forged(forge.world, forge.jwt, **{claim: value})


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": -5}, "expired"),
        ({"exp": -5, "iat": -905, "nbf": -905}, "expired"),
        ({"nbf": 6}, "not_yet_valid"),
        ({"iat": 6}, "not_yet_valid"),
        ({"iat": 6, "nbf": 6}, "not_yet_valid"),
        ({"exp": 10 * 365 * 86400}, "lifetime_too_long"),
        ({"exp": 86401}, "lifetime_too_long"),
        ({"iat": 0, "exp": 0}, "lifetime_too_long"),
        ({"iat": 3, "nbf": 3, "exp": 1}, "lifetime_too_long"),
        ({"exp": -4}, None),
        ({"nbf": 5}, None),
        ({"iat": 5}, None),
        ({"exp": 86400}, None),
    ],
)
async def test_a_token_is_good_from_its_start_to_its_end_with_five_seconds_of_leeway(
    forge: Forge, caplog: pytest.LogCaptureFixture, claims: dict[str, int], reason: str | None
) -> None:
    now = int(forge.world.clock())
    times = {"iat": now, "nbf": now, "exp": now + 900}
    if claims.get("exp", 0) < 0 and "iat" not in claims:
        times["iat"] = now - 900
    times |= {name: now + seconds for name, seconds in claims.items()}
    with audited(caplog) as trail:
        answer = await forge.sidecar.exchange(forged(forge.world, forge.jwt, **times))
    if reason is None:
        assert answer.status == 200
    else:
        assert (verdict(answer), trail.reason) == (DENIED, f"jwt_{reason}")


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "number", ['"NOW"', "NOW.0", "NOW.5", "1e400", "NaN", "Infinity", "-1", "1" + "0" * 400, "true",
               "9007199254740992", '"\u0661"', "1" + "0" * 5000],
    ids=lambda text: text[:8],
)  # fmt: skip
async def test_a_time_is_a_sane_whole_number_or_nothing(
    forge: Forge, caplog: pytest.LogCaptureFixture, claim: str, number: str
) -> None:
    now = int(forge.world.clock())
    claims = claims_of(forge.jwt) | {"iat": now, "nbf": now, "exp": now + 900}
    right = claims[claim]
    payload = changed(claims, {claim: "HERE"}).decode().replace('"HERE"', number)
    payload = payload.replace("NOW", str(right))
    token = signed(changed(forge.header, {}), payload.encode(), forge.private())
    with audited(caplog) as trail:
        answer = await forge.sidecar.exchange(token)
    assert verdict(answer) == DENIED
    assert trail.reason in ("jwt_bad_claims", "jwt_payload_not_json")


@pytest.mark.parametrize(
    "issuer", ["", "https://x.example", "ISSUER/", "ISSUERx", "xISSUER", ["ISSUER"], None]
)
async def test_the_issuer_must_be_ours_byte_for_byte(forge: Forge, issuer: Any) -> None:
    if isinstance(issuer, str):
        issuer = issuer.replace("ISSUER", forge.world.issuer)
    elif issuer:
        issuer = [forge.world.issuer]
    assert verdict(await forge.sidecar.exchange(edited(forge, "iss", issuer))) == DENIED


async def test_a_token_of_a_removed_key_is_refused(
    forge: Forge, caplog: pytest.LogCaptureFixture
) -> None:
    reconfigure(forge.world, signingKeys=[{"file": "RS256.pem", "algorithm": "RS256"}])
    async with replica(forge.world) as rotated:
        with audited(caplog) as trail:
            assert verdict(await rotated.exchange("mcp-servers/notes", forge.jwt)) == DENIED
    assert trail.reason == "jwt_unknown_kid"


async def test_a_minted_token_has_the_contracts_claims_and_no_others(forge: Forge) -> None:
    assert forge.header == {"alg": "ES256", "kid": forge.keys["ES256"].kid, "typ": "at+jwt"}
    claims = claims_of(forge.jwt)
    assert set(claims) == {
        "iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", "tsid",
    }  # fmt: skip
    assert (claims["iss"], claims["aud"]) == (forge.world.issuer, NOTES)
    assert claims["exp"] - claims["iat"] == 900
    assert len(decoded(claims["tsid"])) >= 16
    assert len(decoded(claims["jti"])) >= 16
    assert "alice" not in str(claims)
