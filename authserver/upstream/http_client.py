"""The one HTTP client towards upstreams: no redirects, no proxies or netrc, bounded answers.

aiohttp posts a form again to wherever a 307 points, and takes proxies from the environment.
Both would hand a client secret to somebody else. A proxy counts only where the operator names it
for that upstream. Each call has a connection of its own, because a reused one that the upstream
just closed leaves it unknown whether a refresh token was taken.
"""

import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from authserver.oauth.parsing import Malformed, form_fields, json_object
from authserver.upstream.contract import MaySend, OutcomeUnknown, Unavailable
from authserver.upstream.trust import SYSTEM_TRUST, verifying_context
from authserver.values import Hidden, Value

# A hundred keys with their certificates fit.
_MAX_ANSWER_BYTES: Final = 1024 * 1024
_MAX_RETRY_AFTER_SECONDS: Final = 900
# With what may go before and after it, a refresh stays within its flight of 15 seconds.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=9, sock_connect=5)


class Answer(Value, frozen=True):
    """What an upstream answered: status, JSON object or form, and the pause it asked for.

    `readable` is False where the body was neither; then `body` is empty.
    """

    status: int
    body: Hidden[dict[str, Any]]
    retry_after: int | None = None
    readable: bool = True


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

    def client(
        self,
        authorities: Path | None = None,
        proxy: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> "HttpClient":
        """Calls that accept certificates of these authorities only; of the system's for None.

        `headers` come with every call.
        """
        context = None if authorities is None else verifying_context(authorities)
        return HttpClient(self, ssl=context, proxy=proxy, headers=headers)

    async def call(
        self, method: str, url: str, *, body: "RequestBody | None" = None, **options: Any
    ) -> Answer:
        """The answer to a request. Raises Unavailable or OutcomeUnknown."""
        assert self._session is not None
        try:
            async with self._session.request(
                method, url, data=body, allow_redirects=False, **options
            ) as answer:
                return await _read(answer)
        except aiohttp.ClientConnectorCertificateError as refused:
            raise Unavailable(
                "certificate_refused", detail=_words_of(refused), lasting=True
            ) from None
        except aiohttp.ClientHttpProxyError:
            raise Unavailable("proxy_refused") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Unavailable("not_reached") from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            if body is not None and body.withheld:
                raise Unavailable("refresh_withheld") from None
            if body is not None and not body.sent:
                raise Unavailable("not_reached") from None
            raise OutcomeUnknown("no_answer") from None


# How the fields of a request are written: as a form (RFC 6749), or as members of a JSON object.
RequestFormat = Literal["form", "json"]


class RequestBody(aiohttp.BytesPayload):
    """Fields that are written to the socket only if `may_send` still agrees at that moment."""

    def __init__(
        self,
        fields: Mapping[str, str | Sequence[str]],
        may_send: MaySend | None = None,
        *,
        written_as: RequestFormat = "form",
    ) -> None:
        if not fields:
            super().__init__(b"")  # An API that wants no body may refuse a type without one.
        elif written_as == "json":
            super().__init__(json.dumps(fields).encode(), content_type="application/json")
        else:
            super().__init__(
                urlencode(fields, doseq=True).encode(),
                content_type="application/x-www-form-urlencoded",
            )
        self.fields = fields
        self._may_send = may_send
        self.sent = self.withheld = False

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        if self._may_send is not None and not await self._may_send():
            self.withheld = True
            raise ConnectionAbortedError
        self.sent = True
        await super().write_with_length(writer, content_length)


class HttpClient:
    """Calls of one upstream, with the trust and the proxy it asks for."""

    def __init__(
        self,
        http: UpstreamHttp,
        *,
        ssl: ssl.SSLContext | None,
        proxy: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._http, self._ssl, self._proxy, self._headers = http, ssl, proxy, headers

    async def get(self, url: str, *, bearer: str | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of a GET. Raises Unavailable."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        try:
            answer = await self._call("GET", url, headers=headers)
        except OutcomeUnknown as failure:
            raise Unavailable(failure.reason) from None  # a GET changes nothing
        if answer.status == 200 and not answer.readable:
            raise Unavailable("unreadable_answer")
        return answer.status, answer.body

    async def post(
        self,
        url: str,
        fields: Mapping[str, str | Sequence[str]],
        *,
        basic: tuple[str, str] | None = None,
        bearer: str | None = None,
        may_send: MaySend | None = None,
        written_as: RequestFormat = "form",
        method: Literal["POST", "DELETE"] = "POST",
    ) -> Answer:
        """The answer to a request with fields. Raises Unavailable or OutcomeUnknown."""
        credential = _basic(*basic) if basic else f"Bearer {bearer}" if bearer else None
        headers = {"Authorization": credential} if credential else {}
        body = RequestBody(fields, may_send, written_as=written_as)
        return await self._call(method, url, headers=headers, body=body)

    async def _call(
        self, method: str, url: str, *, headers: Mapping[str, str], **options: Any
    ) -> Answer:
        sent = {**self._headers, **headers}
        trust = self._ssl or await SYSTEM_TRUST.context()
        return await self._http.call(
            method, url, ssl=trust, proxy=self._proxy, headers=sent, **options
        )


async def _read(answer: aiohttp.ClientResponse) -> Answer:
    retry_after = _seconds(answer.headers.get("Retry-After"), answer.headers.get("Date"))
    body = await answer.content.read(_MAX_ANSWER_BYTES + 1)
    while len(body) <= _MAX_ANSWER_BYTES and (more := await answer.content.read(_MAX_ANSWER_BYTES)):
        body += more
    try:
        if len(body) > _MAX_ANSWER_BYTES:
            raise Malformed("too large")
        if answer.content_type == "application/x-www-form-urlencoded":
            # GitHub, unless it heeds our Accept
            return Answer(answer.status, dict(form_fields(body)), retry_after)
        return Answer(answer.status, json_object(body), retry_after)
    except Malformed:
        return Answer(answer.status, {}, retry_after, readable=False)


def _seconds(retry_after: str | None, date: str | None) -> int | None:
    """How long a Retry-After header says to wait (RFC 9110 section 10.2.3), within bounds."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return min(int(retry_after[:9]), _MAX_RETRY_AFTER_SECONDS)
    try:
        # Both by the upstream's clock.
        pause = parsedate_to_datetime(retry_after) - parsedate_to_datetime(date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return int(min(max(0, pause.total_seconds()), _MAX_RETRY_AFTER_SECONDS))


def _words_of(refused: aiohttp.ClientConnectorCertificateError) -> str:
    """Which rule OpenSSL found broken; it names a rule or our host, never a secret."""
    error = refused.certificate_error
    words = getattr(error, "verify_message", "") or "certificate verify failed"
    return str(words)[:200]


def _basic(client_id: str, secret: str) -> str:
    # RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
