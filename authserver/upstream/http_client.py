"""The one HTTP client towards upstreams: no redirects, no proxies or netrc, bounded answers.

aiohttp posts a form again to wherever a 307 points, and takes proxies from the environment;
both would hand a client secret to somebody else. Each call has a connection of its own, because
a reused one that the upstream just closed leaves it unknown whether a refresh token was taken.
"""

import base64
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp

from authserver.oauth.parsing import Malformed, form_fields, json_object
from authserver.upstream.contract import OutcomeUnknown, Unavailable

_MAX_ANSWER_BYTES: Final = 256 * 1024
# With what may go before and after it, a refresh stays within its flight of 15 seconds.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=9, sock_connect=5)


class UpstreamHttp:
    """Use as an async context manager for the life of the process."""

    def __init__(self, timeout: aiohttp.ClientTimeout = _TIMEOUT) -> None:
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=100),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            trust_env=False,
            auto_decompress=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def with_ca(self, authorities: Path | None) -> "HttpClient":
        """Calls that accept certificates of these authorities only; of the system's for None."""
        if authorities is None:
            return HttpClient(self, ssl=True)
        context = ssl.create_default_context(cafile=authorities)
        return HttpClient(self, ssl=context)

    async def call(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer. Raises Unavailable or OutcomeUnknown."""
        assert self._session is not None
        try:
            async with self._session.request(
                method, url, allow_redirects=False, **options
            ) as answer:
                return answer.status, await _read(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Unavailable("not_reached") from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise OutcomeUnknown("no_answer") from None


class HttpClient:
    """Calls of one upstream, with the trust it asks for."""

    def __init__(self, http: UpstreamHttp, *, ssl: ssl.SSLContext | bool) -> None:
        self._http, self._ssl = http, ssl

    async def get(self, url: str, *, bearer: str | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of a GET. Raises Unavailable."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        try:
            return await self._call("GET", url, headers=headers)
        except OutcomeUnknown as failure:
            raise Unavailable(str(failure)) from None  # a GET changes nothing

    async def post(
        self, url: str, fields: dict[str, str], *, basic: tuple[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of a form POST. Raises Unavailable or OutcomeUnknown."""
        headers = {"Authorization": _basic(*basic)} if basic else {}
        return await self._call("POST", url, headers=headers, data=fields)

    async def _call(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        return await self._http.call(method, url, ssl=self._ssl, **options)


async def _read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The answer's JSON object; empty where a failure has another body."""
    body = await answer.content.read(_MAX_ANSWER_BYTES + 1)
    while len(body) <= _MAX_ANSWER_BYTES and (more := await answer.content.read(_MAX_ANSWER_BYTES)):
        body += more
    try:
        if len(body) > _MAX_ANSWER_BYTES:
            raise Malformed("too large")
        if answer.content_type == "application/x-www-form-urlencoded":
            return dict(form_fields(body))  # GitHub, unless it heeds our Accept
        return json_object(body)
    except Malformed:
        if answer.status >= 300 or not body:
            return {}
        raise OutcomeUnknown("unreadable_answer") from None


def _basic(client_id: str, secret: str) -> str:
    # RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
