"""The fake upstream over HTTP: OpenID provider, API, and a view of its state for tests."""

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web
from aiohttp.typedefs import Handler

from chassis import clock
from demo.upstream import protocol
from demo.upstream.grants import Grants, Tokens
from demo.upstream.id_tokens import IdTokens, profile
from demo.upstream.pages import login_page

HOST: Final = "127.0.0.1"

_NO_STORE: Final = {"Cache-Control": "no-store"}


class Interference:
    """What goes wrong at a refresh or a revocation: nothing, unless a test overrides it."""

    async def before(self, request: web.Request, refresh_token: str) -> None:
        """The request is here; nothing has been done."""

    async def after(self, request: web.Request, refresh_token: str) -> None:
        """The refresh token is spent; nobody has been told."""

    async def before_revocation(self) -> None:
        """The request is here; the token still lives."""


class FakeUpstream:
    """An OpenID provider with one registered client.

    `redirect_uri` may be set after the start, once the client's own port is known; `issuer` is
    known from the start on.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        access_token_lifetime: int = 3600,
        now: clock.Clock = clock.wall,
    ) -> None:
        self.redirect_uri = redirect_uri
        self.issuer = ""
        self.interference = Interference()
        # What every token answer says beside the usual, such as when the grant ends.
        self.token_members: dict[str, Any] = {}
        # What the API wants of a token, beside that it lives.
        self.api_scope = ""
        self.grants = Grants(now=now, access_token_lifetime=access_token_lifetime)
        self._client = protocol.Client(client_id, client_secret)
        self._id_tokens = IdTokens()
        self._now = now

    @asynccontextmanager
    async def serve(
        self, *, port: int = 0, host: str = HOST, issuer: str = ""
    ) -> AsyncIterator["FakeUpstream"]:
        """Answer until the block ends; port 0 takes a free one. Raises OSError if taken.

        `issuer` is its URL where something in front of it ends TLS.
        """
        listening = socket.create_server((host, port))
        self.issuer = issuer or f"http://{host}:{listening.getsockname()[1]}"
        # The access log would print query strings, and with them codes and states.
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            yield self
        finally:
            await runner.cleanup()

    @asynccontextmanager
    async def serve_api(self, *, port: int, tls: ssl.SSLContext) -> AsyncIterator[None]:
        """Answer over TLS as well until the block ends. Raises OSError if the port is taken."""
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port, ssl_context=tls).start()
            yield
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_render_refusals])
        application.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
                web.get("/authorize", self._authorize),
                web.post("/login", self._login),
                web.post("/token", self._token),
                web.post("/revoke", self._revoke),
                web.get("/userinfo", self._userinfo),
                web.get("/api/user", self._api_user),
                web.get("/control/stats", self._stats),
                web.get("/control/access-tokens", self._access_tokens),
            ]
        )
        return application

    async def _discovery(self, _: web.Request) -> web.Response:
        client_authentication = ["client_secret_basic", "client_secret_post"]
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "revocation_endpoint": f"{self.issuer}/revoke",
                "scopes_supported": list(protocol.SCOPES),
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": client_authentication,
                "revocation_endpoint_auth_methods_supported": client_authentication,
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response(self._id_tokens.jwks)

    async def _authorize(self, request: web.Request) -> web.Response:
        parameters = protocol.single_valued(request.query)
        if parameters.get("client_id") != self._client.id:
            raise protocol.UnknownClient("this client is not registered here")
        if parameters.get("redirect_uri") != self.redirect_uri:
            raise protocol.UnknownClient("this redirect_uri is not registered here")
        try:
            asked = protocol.read_authorization_request(parameters)
        except protocol.Refusal as refusal:
            return self._back_to_client(parameters.get("state"), {"error": refusal.code})
        return login_page(self.grants.open_login(asked))

    async def _login(self, request: web.Request) -> web.Response:
        form = protocol.single_valued(await request.post())
        handle = form.get("transaction", "")
        signed_in = self.grants.sign_in(handle, form.get("username", ""), form.get("password", ""))
        if signed_in is None:
            return login_page(handle, refused=True)
        asked, code = signed_in
        return self._back_to_client(asked.state, {"code": code})

    def _back_to_client(self, state: str | None, answer: Mapping[str, str]) -> web.Response:
        known = {"state": state} if state is not None else {}
        query = urlencode({**answer, **known, "iss": self.issuer})
        separator = "&" if "?" in self.redirect_uri else "?"
        location = f"{self.redirect_uri}{separator}{query}"
        return web.Response(status=303, headers={**_NO_STORE, "Location": location})

    async def _token(self, request: web.Request) -> web.Response:
        form = await self._client_form(request)
        match form.get("grant_type"):
            case "authorization_code":
                tokens = self.grants.redeem_code(
                    form.get("code", ""),
                    redirect_uri=form.get("redirect_uri", ""),
                    verifier=form.get("code_verifier", ""),
                )
                return self._answer(tokens, first=True)
            case "refresh_token":
                refresh_token = form.get("refresh_token", "")
                await self.interference.before(request, refresh_token)
                tokens = self.grants.refresh(refresh_token)
                await self.interference.after(request, refresh_token)
                return self._answer(tokens, first=False)
            case _:
                raise protocol.UnsupportedGrantType("authorization_code or refresh_token")

    def _answer(self, tokens: Tokens, *, first: bool) -> web.Response:
        answer: dict[str, Any] = {
            "access_token": tokens.access_token,
            "token_type": "Bearer",
            "expires_in": tokens.expires_in,
            "refresh_token": tokens.refresh_token,
            "scope": tokens.grant.scope,
        } | self.token_members
        if "openid" in tokens.grant.scope.split():
            answer["id_token"] = self._id_tokens.sign(
                tokens.grant,
                issuer=self.issuer,
                client_id=self._client.id,
                now=int(self._now()),
                first=first,
            )
        return web.json_response(answer, headers=_NO_STORE)

    async def _revoke(self, request: web.Request) -> web.Response:
        form = await self._client_form(request)
        await self.interference.before_revocation()
        self.grants.revoke(form.get("token", ""))
        return web.Response()

    async def _client_form(self, request: web.Request) -> dict[str, str]:
        form = protocol.single_valued(await request.post())
        protocol.require_client(self._client, request.headers.get("Authorization"), form)
        return form

    async def _userinfo(self, request: web.Request) -> web.Response:
        grant = self.grants.bearer(protocol.bearer_token(request.headers.get("Authorization")))
        return web.json_response({"sub": grant.user.subject, **profile(grant)}, headers=_NO_STORE)

    async def _api_user(self, request: web.Request) -> web.Response:
        grant = self.grants.bearer(protocol.bearer_token(request.headers.get("Authorization")))
        if self.api_scope and self.api_scope not in grant.scope.split():
            return _insufficient(self.api_scope)
        user = grant.user
        self.grants.counts[user.login].api_calls += 1
        answer = {"login": user.login, "id": user.id, "name": user.name}
        return web.json_response(answer, headers=_NO_STORE)

    async def _stats(self, _: web.Request) -> web.Response:
        counts = {login: asdict(counted) for login, counted in self.grants.counts.items()}
        return web.json_response(counts, headers=_NO_STORE)

    async def _access_tokens(self, request: web.Request) -> web.Response:
        """Every access token that a user was given, for searches that must not find it."""
        login = request.query.get("user", "")
        return web.json_response(self.grants.access_tokens_of(login), headers=_NO_STORE)


def _insufficient(scope: str) -> web.Response:
    """RFC 6750 section 3.1."""
    challenge = f'Bearer realm="acme", error="insufficient_scope", scope="{scope}"'
    return web.json_response(
        {"error": "insufficient_scope"}, status=403, headers={"WWW-Authenticate": challenge}
    )


@web.middleware
async def _render_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (protocol.UnknownClient, protocol.UnknownLogin) as refusal:
        return web.Response(text=f"{refusal}\n", status=refusal.status, headers=_NO_STORE)
    except protocol.Refusal as refusal:
        challenge = {"WWW-Authenticate": refusal.challenge} if refusal.challenge else {}
        body = {"error": refusal.code, "error_description": str(refusal)}
        return web.json_response(body, status=refusal.status, headers={**_NO_STORE, **challenge})
