"""How the fake upstream reads its client's requests, and every refusal it can answer with."""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import unquote_plus

from multidict import MultiMapping

SCOPES: Final = ("openid", "profile", "email", "offline_access")

_S256_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Refusal(Exception):
    """An OAuth error; the text is its `error_description` and carries nothing of the request."""

    code: ClassVar[str]
    status: ClassVar[int] = 400
    challenge: ClassVar[str | None] = None


class InvalidRequest(Refusal):
    code = "invalid_request"


class InvalidClient(Refusal):
    code, status, challenge = "invalid_client", 401, "Basic"


class InvalidGrant(Refusal):
    code = "invalid_grant"


class InvalidToken(Refusal):
    code, status, challenge = "invalid_token", 401, 'Bearer error="invalid_token"'


class UnsupportedGrantType(Refusal):
    code = "unsupported_grant_type"


class UnsupportedResponseType(Refusal):
    code = "unsupported_response_type"


class UnknownClient(Refusal):
    """Client or redirect URI are not registered: told to the user, never redirected."""

    code = "invalid_client"


class UnknownLogin(Refusal):
    """The sign-in was used, has expired or never was: told to the user."""

    code = "invalid_request"


@dataclass(frozen=True)
class AuthorizationRequest:
    redirect_uri: str
    state: str | None
    scope: str
    nonce: str | None
    code_challenge: str


@dataclass(frozen=True)
class Client:
    """The one registered, confidential client."""

    id: str
    secret: str


def single_valued(parameters: MultiMapping[object]) -> dict[str, str]:
    """Parameters as plain texts; raises InvalidRequest for one given twice (RFC 6749 s. 3.1)."""
    if len(set(parameters)) != len(parameters):
        raise InvalidRequest("a parameter is given more than once")
    return {name: value for name, value in parameters.items() if isinstance(value, str)}


def read_authorization_request(parameters: Mapping[str, str]) -> AuthorizationRequest:
    """Raises UnsupportedResponseType or InvalidRequest, for the caller to send to the client."""
    if parameters.get("response_type") != "code":
        raise UnsupportedResponseType("response_type must be code")
    if parameters.get("code_challenge_method") != "S256":
        raise InvalidRequest("code_challenge_method must be S256")
    challenge = parameters.get("code_challenge", "")
    if not _S256_CHALLENGE.fullmatch(challenge):
        raise InvalidRequest("code_challenge must be 43 base64url characters")
    asked = parameters.get("scope", "").split()
    return AuthorizationRequest(
        redirect_uri=parameters["redirect_uri"],
        state=parameters.get("state"),
        scope=" ".join(scope for scope in SCOPES if scope in asked),
        nonce=parameters.get("nonce"),
        code_challenge=challenge,
    )


def require_client(client: Client, authorization: str | None, form: Mapping[str, str]) -> None:
    """Accept client_secret_basic or client_secret_post, not both; raises InvalidClient."""
    if authorization is None:
        name, secret = form.get("client_id", ""), form.get("client_secret", "")
    elif "client_secret" in form:
        raise InvalidRequest("the client authenticates in two ways at once")
    else:
        name, secret = _basic_pair(authorization)
    right_name = hmac.compare_digest(name.encode(), client.id.encode())
    if not (hmac.compare_digest(secret.encode(), client.secret.encode()) and right_name):
        raise InvalidClient("client authentication failed")


def _basic_pair(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient("client authentication failed")
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidClient("client authentication failed") from None
    # RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
    name, _, secret = pair.partition(":")
    return unquote_plus(name), unquote_plus(secret)


def bearer_token(authorization: str | None) -> str:
    """Raises InvalidToken when there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise InvalidToken("a bearer token is needed")
    return token
