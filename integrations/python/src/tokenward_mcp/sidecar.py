"""The call to the sidecar: `POST /v1/token`, for code that awaits and for code that does not."""

import json
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio.lowlevel
import httpx2

from tokenward_mcp.errors import (
    InsufficientScope,
    SignInRequired,
    TemporarilyUnavailable,
    TokenError,
    unavailable,
)

_T = TypeVar("_T")

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"

_ROUTE: Final = "/v1/token"
# The sidecar ends a question after nine seconds itself; this is for one that hangs.
_TIMEOUT_SECONDS: Final = 12.0
# The sidecar listens on loopback alone and knows no other names. A JWT goes nowhere else.
_URL: Final = re.compile(r"(http://(?:127\.0\.0\.1|localhost):[0-9]{1,5})/?", re.ASCII)
_ACCESS_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)  # RFC 6749 appendix A.12
_NO_SIDECAR: Final = (
    "TOKENWARD_URL is not set. Is the sidecar in this pod? "
    "See `kubectl get pod -L tokenward.dev/injected`."
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for: `min_ttl` in seconds, `rejected_token` as the API refused it.

    `missing_scope`: scopes that the API wants, with spaces between.
    """

    upstream: str | None = None
    min_ttl: int = 0
    rejected_token: str | None = field(default=None, repr=False)
    missing_scope: str | None = None

    def body(self) -> dict[str, Any]:
        members = {
            "upstream": self.upstream,
            "min_ttl": self.min_ttl or None,
            "rejected_token": self.rejected_token,
            "missing_scope": self.missing_scope,
        }
        return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; `expires_in` in seconds from when it was asked for, None if unknown."""

    access_token: str = field(repr=False)
    expires_in: int | None


class Sidecar:
    """The sidecar of this pod. `url` defaults to `$TOKENWARD_URL`; raises ValueError for no such.

    Its connections are made at first use, one pool for each event loop.
    """

    def __init__(self, url: str | None = None) -> None:
        given = url if url is not None else os.environ.get("TOKENWARD_URL")  # noqa: TID251
        if not given:
            raise ValueError(_NO_SIDECAR)
        known = _URL.fullmatch(given)
        if known is None:
            raise ValueError("TOKENWARD_URL must be http://127.0.0.1:<port>")
        self._base = known[1]
        self._awaited: tuple[object, httpx2.AsyncClient] | None = None
        self._plain: httpx2.Client | None = None

    async def ask(self, jwt: str | None, question: Question) -> Token:
        """Raises TokenError. Without a `jwt` the sidecar answers with its challenge alone."""
        try:
            answer = await self._client().post(_ROUTE, headers=_headers(jwt), json=question.body())
        except httpx2.HTTPError as error:
            raise _unreachable(error) from None
        return read_answer(answer)

    def ask_blocking(self, jwt: str, question: Question) -> Token:
        """The same for threads other than the event loop's. Raises TokenError."""
        if self._plain is None:
            self._plain = self._make(httpx2.Client)
        try:
            answer = self._plain.post(_ROUTE, headers=_headers(jwt), json=question.body())
        except httpx2.HTTPError as error:
            raise _unreachable(error) from None
        return read_answer(answer)

    async def metadata(self) -> bytes | None:
        """The RFC 9728 document; None where the sidecar knows no resource. Raises TokenError."""
        try:
            answer = await self._client().get(METADATA_PATH)
        except httpx2.HTTPError as error:
            raise _unreachable(error) from None
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise read_refusal(answer)
        return answer.content

    async def aclose(self) -> None:
        """Close the connections of this event loop and of the threads."""
        if self._awaited is not None:
            client, self._awaited = self._awaited[1], None
            await client.aclose()
        if self._plain is not None:
            self._plain.close()
            self._plain = None

    def _client(self) -> httpx2.AsyncClient:
        loop = anyio.lowlevel.current_token()
        if self._awaited is None or self._awaited[0] != loop:
            self._awaited = (loop, self._make(httpx2.AsyncClient))
        return self._awaited[1]

    def _make(self, kind: Callable[..., _T]) -> _T:
        """A client that the environment's proxies and credentials do not reach."""
        return kind(
            base_url=self._base,
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
            follow_redirects=False,
            # Plain HTTP: an empty context spares reading the system's CAs.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )


def read_answer(answer: httpx2.Response) -> Token:
    """The token of an answer to `POST /v1/token`. Raises TokenError."""
    if answer.status_code != 200:
        raise read_refusal(answer)
    members = _members(answer)
    access_token, expires_in = members.get("access_token"), members.get("expires_in")
    if not isinstance(access_token, str) or not _ACCESS_TOKEN.fullmatch(access_token):
        raise unavailable("The sidecar's answer holds no token.")
    return Token(access_token, expires_in if type(expires_in) is int else None)


def read_refusal(answer: httpx2.Response) -> TokenError:
    """What the sidecar said no with; an answer that is not its own counts as an outage."""
    members = _members(answer)
    error, description = members.get("error"), members.get("error_description")
    if answer.status_code < 400 or not isinstance(error, str) or not isinstance(description, str):
        return unavailable(f"What listens at TOKENWARD_URL answered {answer.status_code}.")
    return _kind(answer.status_code, error)(
        error,
        description,
        status=answer.status_code,
        action=_text(members, "action") or "none",
        request_id=_text(members, "request_id"),
        connect_url=_text(members, "connect_url"),
        challenges=answer.headers.get_list("WWW-Authenticate"),
        retry_after=answer.headers.get("Retry-After"),
        scope=_text(members, "scope"),
    )


def _kind(status: int, error: str) -> type[TokenError]:
    if (status, error) == (403, "insufficient_scope"):
        return InsufficientScope
    kinds = {401: SignInRequired, 429: TemporarilyUnavailable, 503: TemporarilyUnavailable}
    return kinds.get(status, TokenError)


def _headers(jwt: str | None) -> dict[str, str]:
    authorization = {} if jwt is None else {"Authorization": f"Bearer {jwt}"}
    return {"X-Tokenward": "1", **authorization}


def _unreachable(error: httpx2.HTTPError) -> TemporarilyUnavailable:
    # Only the class: the error's request carries the JWT.
    return unavailable(f"The sidecar cannot be reached ({type(error).__name__}).")


def _members(answer: httpx2.Response) -> dict[str, Any]:
    try:
        members = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _text(members: dict[str, Any], name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) else None
