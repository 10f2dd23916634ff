"""A sidecar whose upstream has an API: a small one over TLS that accepts its own tokens only."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from demo.pki import CertificateAuthority, write_credential
from sidecar.timeouts import DEFAULT, Timeouts
from tests.fakes.authserver import answering, release
from tests.sidecar.harness import JWT, Authorities, Harness, harness

TOKEN = "canary/upstream+token~1"
PAGE = b'{"ok": true}'


@dataclass(frozen=True)
class Called:
    """One call as the API received it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known.lower() == name]


Handle = Callable[[web.BaseRequest, Called], Awaitable[web.StreamResponse]]


async def page(_: web.BaseRequest, __: Called) -> web.StreamResponse:
    return web.Response(body=PAGE, content_type="application/json")


@dataclass
class FakeApi:
    """Listens on `localhost` with a certificate of `authority` for `hosts`."""

    authority: CertificateAuthority
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    called: list[Called] = field(default_factory=list)
    handle: Handle = page
    port: int = 0
    connections: int = 0
    hosts: tuple[str, ...] = ("localhost",)

    @property
    def base_url(self) -> str:
        return f"https://localhost:{self.port}"

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator["FakeApi"]:
        write_credential(folder, self.authority.issue_server(dns=self.hosts))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server = web.Server(self._serve, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=tls).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.raw_headers]
        streams = "x-stream" in request.headers
        body = b"" if streams else await request.read()
        called = Called(request.method, request.raw_path, headers, body)
        self.called.append(called)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            challenge = {"WWW-Authenticate": 'Bearer realm="api", error="invalid_token"'}
            return web.json_response({"message": "Bad credentials"}, status=401, headers=challenge)
        return await self.handle(request, called)


@dataclass
class Answer:
    """What came back through the door."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    json: Any = None

    @property
    def error(self) -> str | None:
        """The error of an answer that is ours; it must say so in both places."""
        name = self.headers.get("X-Tokenward-Error")
        if name is not None:
            assert self.json["error"] == name
            assert self.json["request_id"] == self.headers["X-Request-Id"]
        return name


@dataclass
class Attached:
    """The sidecar `r` and its API."""

    r: Harness
    api: FakeApi

    def describe(self, **changes: Any) -> dict[str, Any]:
        """The API as the exchange answer has it."""
        return {
            "name": "rest",
            "base_url": self.api.base_url,
            "methods": ["GET", "HEAD", "POST", "PUT", "DELETE"],
            "path_prefixes": ["/repos", "/user", "/projects"],
            "default": True,
            "credential_headers": ["X-Custom-Key"],
            "credential_parameters": ["custom_key"],
            "link_members": ["next", "url"],
            "search_answers": True,
            "excluded_paths": ["/user/keys", "/repos/*/*/keys"],
            "ca": self.api.authority.certificate_pem.decode(),
        } | changes

    def release(self, token: str = TOKEN, **changes: Any) -> Callable[[], web.Response]:
        members = {"access_token": token, "apis": [self.describe()]} | changes
        return lambda: release(**members)

    def always(self, token: str = TOKEN, **changes: Any) -> None:
        self.r.authserver.always(answering(self.release(token, **changes)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.r.port}/upstream/github"

    async def call(
        self,
        path: str = "/repos",
        method: str = "GET",
        *,
        jwt: str | None = JWT,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        url: str = "",
    ) -> Answer:
        """Call as an SDK would whose base URL is ours."""
        sent = {} if jwt is None else {"Authorization": f"Bearer {jwt}"}
        where = URL(url or f"{self.url}{path}", encoded=True)
        async with self.r.http.request(
            method, where, headers=sent | dict(headers or {}), data=data, allow_redirects=False
        ) as response:
            raw = await response.read()
            is_json = raw and "json" in response.headers.get("Content-Type", "")
            parsed = await response.json() if is_json else None
            return Answer(response.status, response.headers, raw, parsed)

    async def send(self, raw: bytes) -> bytes:
        """Bytes exactly as given; what comes back until the sidecar closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.r.port)
        try:
            writer.write(raw)
            writer.write_eof()
            return await reader.read()
        finally:
            writer.close()

    def counted(self, result: str) -> float:
        return self.r.metric("tokenward_sidecar_requests_total", door="attach", result=result)


@asynccontextmanager
async def attached(
    folder: Path,
    authorities: Authorities,
    authority: CertificateAuthority,
    timeouts: Timeouts = DEFAULT,
    **changes: Any,
) -> AsyncIterator[Attached]:
    """A sidecar and an API that it may call at its default policy."""
    (folder / "api").mkdir()
    async with (
        FakeApi(authority).listening(folder / "api") as api,
        harness(folder, authorities, timeouts=timeouts, **changes) as r,
    ):
        both = Attached(r, api)
        both.always()
        yield both


async def stream_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for piece in response.content.iter_any():
        yield piece
