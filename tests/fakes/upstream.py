"""An upstream that can misbehave: an OpenID provider that signs everybody in without a question.

It rotates refresh tokens and remembers each one it was shown. A test scripts how the next
refreshes go with `then`; everything else it does like a decent provider.
"""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from authserver.oauth.pkce import matches
from chassis import clock
from tests.support.forged_tokens import private_pem, signed

Answer = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class HostileUpstream:
    def __init__(self, *, lifetime: int | None = 100) -> None:
        self.lifetime = lifetime
        self.issuer, self.tls_port = "", 0
        self.presented: list[str] = []
        self.revoked: list[str] = []
        self.revocation_status = 200
        self.revocation_clients: list[str] = []
        self._next_revocations: deque[Answer] = deque()
        self.forms: list[dict[str, str]] = []
        self.questions, self.refuses_access_tokens = 0, False
        self.discovery_open, self.jwks_open = asyncio.Event(), asyncio.Event()
        self.discovery_open.set()
        self.jwks_open.set()
        self._next: deque[Answer] = deque()
        self._arrived = asyncio.Condition()
        self._issued = 0
        self._codes: dict[str, dict[str, str]] = {}
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._jwk = ECKey.import_key(private_pem(self._key))

    def then(self, *answers: Answer) -> None:
        self._next.extend(answers)

    def then_revoke(self, *answers: Answer) -> None:
        """How the next revocations go; later ones answer `revocation_status`."""
        self._next_revocations.extend(answers)

    async def until_presented(self, count: int) -> None:
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.presented) >= count)

    @property
    def configuration(self) -> list[dict[str, Any]]:
        return [
            {
                "name": "acme",
                "type": "oidc",
                "issuer": self.issuer,
                "clientId": "tokenward",
                "clientSecretFile": "upstream-secret",
            }
        ]

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["HostileUpstream"]:
        """Answer on loopback: in plain HTTP, and with `tls` on `tls_port` too."""
        application = web.Application()
        application.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
                web.get("/authorize", self._authorize),
                web.post("/token", self._token),
                web.post("/revoke", self._revoke),
                web.get("/userinfo", self._userinfo),
            ]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        if tls is not None:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            self.tls_port = runner.addresses[1][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _discovery(self, _: web.Request) -> web.Response:
        await self.discovery_open.wait()
        endpoints = {
            "authorization_endpoint": "authorize",
            "token_endpoint": "token",
            "jwks_uri": "jwks",
            "revocation_endpoint": "revoke",
            "userinfo_endpoint": "userinfo",
        }
        found = {name: f"{self.issuer}/{path}" for name, path in endpoints.items()}
        return web.json_response(found | {"issuer": self.issuer})

    async def _jwks(self, _: web.Request) -> web.Response:
        await self.jwks_open.wait()
        return web.json_response({"keys": [self._jwk.as_dict(private=False) | {"kid": "1"}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        code = f"code-{len(self._codes)}"
        self._codes[code] = dict(request.query)
        back = urlencode({"code": code, "state": request.query["state"]})
        location = f"{request.query['redirect_uri']}?{back}"
        return web.Response(status=303, headers={"Location": location})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self.forms.append({name: str(value) for name, value in form.items()})
        if form["grant_type"] == "authorization_code":
            asked = self._codes.pop(str(form["code"]))
            assert matches(str(form["code_verifier"]), asked["code_challenge"])
            claims = {"nonce": asked["nonce"]} if "nonce" in asked else {}
            return web.json_response(self.tokens(**claims))
        async with self._arrived:
            self.presented.append(str(form["refresh_token"]))
            self._arrived.notify_all()
        usual = self.tokens()
        if self._next:
            return await self._next.popleft()(request, usual)
        return web.json_response(usual)

    async def _userinfo(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("Bearer access-")
        self.questions += 1
        return web.json_response(
            {"sub": "user-1"}, status=401 if self.refuses_access_tokens else 200
        )

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        self.revoked.append(str((await request.post())["token"]))
        self.revocation_clients.append(request.headers.get("Authorization", ""))
        if self._next_revocations:
            return await self._next_revocations.popleft()(request, {})
        return web.Response(status=self.revocation_status)

    def tokens(self, subject: str = "user-1", **claims: Any) -> dict[str, Any]:
        """A fresh set of tokens."""
        self._issued += 1
        answer: dict[str, Any] = {
            "access_token": f"access-{self._issued}",
            "refresh_token": f"refresh-{self._issued}",
            "token_type": "Bearer",
            "id_token": self.id_token(subject, **claims),
        }
        return answer if self.lifetime is None else answer | {"expires_in": self.lifetime}

    def id_token(self, subject: str, **more: Any) -> str:
        now = int(clock.wall())
        claims = {"iss": self.issuer, "aud": "tokenward", "sub": subject, "iat": now}
        header = json.dumps({"alg": "ES256", "kid": "1", "typ": "JWT"}).encode()
        return signed(header, json.dumps(claims | {"exp": now + 9999} | more).encode(), self._key)


# Ways to answer a refresh.


def saying(status: int, body: Any, **headers: str) -> Answer:
    """This, whatever was asked; texts go out as HTML."""

    async def answer(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        if isinstance(body, str | bytes):
            text = body.encode() if isinstance(body, str) else body
            return web.Response(status=status, body=text, content_type="text/html", headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return answer


def changing(**members: Any) -> Answer:
    """The usual answer with other members; None leaves one out."""

    async def answer(_: web.Request, usual: dict[str, Any]) -> web.StreamResponse:
        body = {name: value for name, value in (usual | members).items() if value is not None}
        return web.json_response(body)

    return answer


async def hanging_up(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    """Take the token and close the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


class Held:
    """An answer that waits until it is let go."""

    def __init__(self, after: Answer | None = None) -> None:
        self._let_go, self._after = asyncio.Event(), after

    def let_go(self) -> None:
        self._let_go.set()

    async def __call__(self, request: web.Request, usual: dict[str, Any]) -> web.StreamResponse:
        await self._let_go.wait()
        if self._after is not None:
            return await self._after(request, usual)
        return web.json_response(usual)
