"""The providers of the table over HTTP on 127.0.0.1: `http://127.0.0.1:PORT/HOST/PATH`."""

import base64
import binascii
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import unquote_plus, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey

from chassis.clock import Clock
from demo.upstream.dialects.behaviour import Answer, Behaviour, Issued, Person
from demo.upstream.dialects.grants import Grant, ProviderGrants, Refused

HOST: Final = "127.0.0.1"
_ALGORITHM: Final = "ES256"
ALICE: Final = Person("1001", "55", "Alice")
BOB: Final = Person("1002", "55", "Bob")
_UNKNOWN_ENDPOINT: Final = Answer(404, {"error": "no such endpoint in the provider's pages"})


class ProviderServer:
    """One provider with one registered client.

    `person` is who sits at the browser. `loses_answers`: refreshes are made and their answers lost.
    `adds` is put into every answer, `adds_claims` into every ID token; `leaves_out` is a member, as
    a dotted path, that is taken from both kinds of answer.
    """

    def __init__(self, behaviour: Behaviour, secret: str, now: Clock, prefix: str = "p") -> None:
        self.behaviour, self.secret = behaviour, secret
        self.grants = ProviderGrants(behaviour, now, prefix)
        self.person = ALICE
        self.url = ""
        self.loses_answers = False
        self.adds: Mapping[str, Any] = {}
        self.adds_claims: Mapping[str, Any] = {}
        self.leaves_out = ""
        self._now = now
        self._key = ECKey.generate_key("P-256", {"use": "sig", "alg": _ALGORITHM}, auto_kid=True)
        self._routes = self._table()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["ProviderServer"]:
        """Answer on a free port until the block ends."""
        listening = socket.create_server((HOST, 0))
        self.url = f"http://{HOST}:{listening.getsockname()[1]}"
        application = web.Application()
        application.router.add_route("*", "/{address:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            yield self
        finally:
            await runner.cleanup()

    def accepts(self, access_token: str) -> bool:
        """Whether the provider's APIs take this token now."""
        return self.grants.bearer(access_token) is not None

    def _table(self) -> dict[tuple[str, str], Any]:
        one = self.behaviour
        issuer = one.issuer.removesuffix("/")
        routes = {
            ("GET", one.authorize): self._authorize,
            ("POST", one.token): self._token,
            ("POST", one.refresh or one.token): self._token,
            (one.revocation_method, one.revocation): self._revoke,
            ("GET", one.userinfo): self._userinfo,
            ("GET", f"{issuer}/.well-known/openid-configuration"): self._discovery,
            ("GET", f"{issuer}/keys"): self._keys,
        }
        return {route: handler for route, handler in routes.items() if route[1]}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        address = request.path.removeprefix("/")
        handler = self._routes.get((request.method, address))
        if handler is None:
            return _rendered(_UNKNOWN_ENDPOINT)
        try:
            answered: web.StreamResponse = await handler(request)
        except Refused as refused:
            return _rendered(refused.answer)
        return answered

    async def _authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        wrong = [name for name, text in self.behaviour.wants.items() if query.get(name) != text]
        if wrong or query.get("client_id") != "tokenward" or query["response_type"] != "code":
            raise Refused(Answer(400, {"error": "invalid_request", "wrong": wrong}))
        back = {"code": self.grants.code(self.person, query), "state": query["state"]}
        location = f"{query['redirect_uri']}?{urlencode(back)}"
        return web.Response(status=302, headers={"Location": location})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        fields = await self._fields(request)
        one = self.behaviour
        presents = fields.get("grant_type") == "refresh_token" or (
            bool(one.refresh) and request.path == f"/{one.refresh}"
        )
        if presents and request.path == f"/{one.refresh or one.token}":
            grant, issued = self.grants.refresh(fields.get("refresh_token", ""))
            body = one.again(issued)
            if self.loses_answers:
                assert request.transport is not None
                request.transport.close()
                return web.Response()
        elif fields.get("grant_type") == "authorization_code":
            code, verifier = fields.get("code", ""), fields.get("code_verifier", "")
            grant, issued = self.grants.redeem(code, verifier)
            body = one.first(issued)
        else:
            raise Refused(Answer(400, {"error": "unsupported_grant_type"}))
        return _rendered(Answer(200, self._changed(self._with_id_token(body, grant, issued))))

    def _changed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        *path, last = self.leaves_out.split(".")
        changed = json.loads(json.dumps(body))
        inner = changed
        for name in path:
            inner = inner.get(name, {})
        inner.pop(last, None)
        return {**changed, **self.adds}

    def _with_id_token(self, body: dict[str, Any], grant: Grant, issued: Issued) -> dict[str, Any]:
        one, person = self.behaviour, grant.person
        issuer = one.issuer if one.names_issuer is None else one.names_issuer(person)
        if not issuer or "openid" not in issued.scopes:
            return body
        now = int(self._now())
        claims: dict[str, Any] = {
            "iss": f"{self.url}/{issuer}",
            "sub": person.id,
            "aud": "tokenward",
            "iat": now,
            "exp": now + 300,
            **one.claims(person),
            **self.adds_claims,
        }
        if grant.nonce is not None:
            claims["nonce"] = grant.nonce
        header = {"alg": _ALGORITHM, "typ": "JWT", "kid": self._key.kid}
        return body | {"id_token": jwt.encode(header, claims, self._key)}

    async def _revoke(self, request: web.Request) -> web.Response:
        one = self.behaviour
        if one.revokes == "bearer":
            revoked = self.grants.revoke(_bearer(request))
        else:
            deletes = one.revocation_method == "DELETE"
            fields = await (self._deleting(request) if deletes else self._fields(request))
            revoked = self.grants.revoke(fields.get(one.revocation_parameter, ""))
        return _rendered(one.revoked if revoked else one.not_revoked)

    async def _userinfo(self, request: web.Request) -> web.Response:
        grant = self.grants.bearer(_bearer(request))
        if grant is None:
            return _rendered(self.behaviour.bad_token)
        return _rendered(Answer(200, self._changed(self.behaviour.person(grant.person))))

    async def _discovery(self, _: web.Request) -> web.Response:
        one = self.behaviour
        named = {
            "issuer": one.issuer,
            "authorization_endpoint": one.authorize,
            "token_endpoint": one.token,
            "jwks_uri": f"{one.issuer.removesuffix('/')}/keys",
            "userinfo_endpoint": one.userinfo,
            "revocation_endpoint": one.revocation,
        }
        document: dict[str, Any] = {
            name: f"{self.url}/{address}" for name, address in named.items() if address
        }
        document["token_endpoint_auth_methods_supported"] = [
            {"basic": "client_secret_basic", "body": "client_secret_post"}[one_way]
            for one_way in one.credentials
        ]
        return _rendered(Answer(200, document))

    async def _keys(self, _: web.Request) -> web.Response:
        return _rendered(Answer(200, {"keys": [self._key.as_dict(private=False)]}))

    async def _deleting(self, request: web.Request) -> dict[str, str]:
        """The JSON of a DELETE under our client's Basic credentials. Raises Refused."""
        credentials = _credentials(request.headers.get("Authorization"), {})
        if credentials != ("basic", "tokenward", self.secret):
            raise Refused(Answer(404, {"message": "Not Found"}))
        sent: dict[str, str] = await request.json()
        return sent

    async def _fields(self, request: web.Request) -> dict[str, str]:
        """The fields of a request of our client. Raises Refused for anybody else."""
        one = self.behaviour
        types = {"form": "application/x-www-form-urlencoded", "json": "application/json"}
        if request.content_type != types[one.written_as]:
            raise Refused(Answer(400, {"error": "invalid_request"}))
        if missing := [name for name in one.wants_headers if name not in request.headers]:
            raise Refused(Answer(400, {"error": "invalid_request", "missing": missing}))
        sent = await (request.json() if one.written_as == "json" else request.post())
        fields = {name: str(text) for name, text in sent.items()}
        credentials = _credentials(request.headers.get("Authorization"), fields)
        if credentials[0] not in one.credentials or credentials[1:] != ("tokenward", self.secret):
            raise Refused(one.bad_client)
        return fields


def _credentials(header: str | None, fields: Mapping[str, str]) -> tuple[str, str, str]:
    """How the client authenticates, its name and its secret (RFC 6749 section 2.3.1)."""
    if header is None:
        return "body", fields.get("client_id", ""), fields.get("client_secret", "")
    try:
        pair = base64.b64decode(header.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "unreadable", "", ""
    name, _, secret = pair.partition(":")
    return "basic", unquote_plus(name), unquote_plus(secret)


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _rendered(answer: Answer) -> web.Response:
    if answer.status == 204:
        return web.Response(status=204)
    return web.json_response(dict(answer.body), status=answer.status)
