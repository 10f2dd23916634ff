"""The ASGI middleware: asks the sidecar before the MCP server sees a request.

A tool cannot answer 401, since HTTP has answered 200 before it runs. Here a refusal becomes an
HTTP answer, and the MCP client refreshes or opens a sign-in. Bodies are never read. Of an answer
only the head is held until its body begins: a tool may still find that a scope is missing.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any, Final

from tokenward_mcp.answers import refuse, serve_metadata
from tokenward_mcp.caller import SCOPE_KEY, Caller, set_current
from tokenward_mcp.errors import AmbiguousRequest, TokenError, unavailable
from tokenward_mcp.sidecar import Question, Sidecar
from tokenward_mcp.step_up import Answer, Challenges

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("tokenward_mcp")

_JWT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}", re.ASCII)
_WELL_KNOWN: Final = "/.well-known/"


class TokenwardMiddleware:
    """Asks for `upstream`'s token before each MCP message, at most once a request.

    Asked about is each `POST` that carries a JWT as its bearer token. Everything else is the
    server's own business: requests without a token, with another kind of token, or those that an
    authentication middleware in front has already found unauthenticated.

    `upstream`: the one every tool needs; None where the resource has only one.
    `require_jwt`: ask about every request, so that the sidecar's check is the server's own.
    `paths`: only these paths are looked at; None is all of them.
    `serve_metadata`: answer the RFC 9728 document's paths from the sidecar's document.
    `url`: the sidecar, `$TOKENWARD_URL` by default. Raises ValueError where it is none.
    """

    def __init__(
        self,
        app: App,
        *,
        upstream: str | None = None,
        require_jwt: bool = False,
        paths: Collection[str] | None = None,
        serve_metadata: bool = False,
        url: str | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(paths, str):
            raise TypeError("paths must be a collection of paths, not one text")
        self._app, self._question = app, Question(upstream)
        self._require_jwt, self._serve_metadata = require_jwt, serve_metadata
        self._paths = None if paths is None else {path.rstrip("/") for path in paths}
        self._sidecar, self._now = Sidecar(url), now
        self._challenges = Challenges(now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._closing(send))
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _path(scope).startswith(_WELL_KNOWN):
            if not (self._serve_metadata and await serve_metadata(self._sidecar, scope, send)):
                await self._app(scope, receive, send)
            return
        if not self._concerns(scope):
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._admit(scope)
        except TokenError as refusal:
            _report(refusal)
            await refuse(refusal, send)
            return
        with set_current(caller):
            scope[SCOPE_KEY] = caller
            await self._app(scope, receive, self._challenging(scope, send))

    def _challenging(self, scope: Scope, send: Send) -> Send:
        """`send`, with a challenge in place of an answer where a tool lacked a scope."""
        jwt = _bearer_jwt(_authorizations(scope["headers"]))
        if jwt is None or scope["method"] != "POST":
            return send
        return Answer(send, lambda: self._challenges.take(jwt), refuse).send

    def _concerns(self, scope: Scope) -> bool:
        if scope["method"] == "OPTIONS":  # a browser's preflight carries no token
            return False
        paths = {_path(scope).rstrip("/"), scope["path"].rstrip("/")}
        return self._paths is None or not self._paths.isdisjoint(paths)

    async def _admit(self, scope: Scope) -> Caller | None:
        """The caller, None for a request that is not ours to judge; raises TokenError."""
        authorizations = _authorizations(scope["headers"])
        if len(authorizations) > 1:
            # The server may read the other one, and act for another user than we asked about.
            raise AmbiguousRequest("Authorization must be sent once.")
        jwt = _bearer_jwt(authorizations)
        if self._require_jwt and jwt is None:
            await self._sidecar.ask(None, self._question)
            raise unavailable("What listens at TOKENWARD_URL gives tokens to anybody.")
        if jwt is None or _found_unauthenticated(scope):
            return None
        caller = Caller(self._sidecar, jwt, self._question.upstream, self._now, self._challenges)
        if scope["method"] == "POST" and (challenge := self._challenges.take(jwt)) is not None:
            raise challenge
        if self._require_jwt or scope["method"] == "POST":
            await self._ask(caller)
        return caller

    async def _ask(self, caller: Caller) -> None:
        try:
            await caller.token(self._question)
        except TokenError as refusal:
            # The JWT and the connection are good; only code gets no token (attach).
            if refusal.error != "attach_only":
                raise

    def _closing(self, send: Send) -> Send:
        """Closes our connections when the server has shut down."""

        async def closing(message: MutableMapping[str, Any]) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self._sidecar.aclose()
            await send(message)

        return closing


def _path(scope: Scope) -> str:
    """The path below where this application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _authorizations(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name.lower() == b"authorization"]


def _bearer_jwt(authorizations: list[str]) -> str | None:
    scheme, _, token = authorizations[0].partition(" ") if authorizations else ("", "", "")
    token = token.strip(" ")
    return token if scheme.lower() == "bearer" and _JWT.fullmatch(token) else None


def _found_unauthenticated(scope: Scope) -> bool:
    """Whether an authentication middleware in front (Starlette's way) refused this token."""
    user = scope.get("user")
    return user is not None and not getattr(user, "is_authenticated", True)


def _report(refusal: TokenError) -> None:
    """What a refusal means to who runs this server; neither JWT nor token is in it."""
    mistake = refusal.action in ("fix_request", "none") and refusal.status not in (401, 403)
    say = _log.error if mistake else _log.info
    # Not the exception's text: a link in it is for its user alone.
    say(
        "no token for this request: %s (%s, request %s)",
        refusal.error_description,
        refusal.error,
        refusal.request_id,
    )
