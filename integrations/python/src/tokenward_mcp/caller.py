"""Whose request is being answered, and that user's tokens: what a tool calls.

Tools find their caller through a context variable, and in the official SDK's version 1 through
the SDK's own: there a session's tools run in the context of the session's first request, so any
other variable would give them the JWT of that one.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final, TypeVar

from tokenward_mcp.errors import InsufficientScope
from tokenward_mcp.sidecar import Question, Sidecar, Token
from tokenward_mcp.step_up import Challenges

_T = TypeVar("_T")

SCOPE_KEY: Final = "tokenward_mcp.caller"

# The sidecar is the one that remembers. This only spares the second question of one request.
_KEPT_SECONDS: Final = 5.0


class NoCaller(RuntimeError):
    """Nobody's request is being answered here, or it came without a JWT."""

    def __init__(self) -> None:
        super().__init__(
            "No request with a JWT is being answered here. Is TokenwardMiddleware in front of this "
            "server, and is this code called by a tool, in a task or thread that has its context?"
        )


class Caller:
    """The user behind one HTTP request, known by the JWT that came with it.

    `upstream` is the one that questions without an upstream mean. `challenges` hears of scopes that
    the user has to be asked for.
    """

    __slots__ = ("_challenges", "_jwt", "_kept", "_now", "_sidecar", "_upstream")

    def __init__(
        self,
        sidecar: Sidecar,
        jwt: str,
        upstream: str | None,
        now: Callable[[], float],
        challenges: Challenges,
    ) -> None:
        self._sidecar, self._jwt, self._upstream, self._now = sidecar, jwt, upstream, now
        self._challenges = challenges
        self._kept: dict[str | None, tuple[Token, float]] = {}

    async def token(self, question: Question) -> str:
        """Raises TokenError."""
        question = self._meant(question)
        if (kept := self._recall(question)) is not None:
            return kept
        asked_at = self._now()
        with self._noting_challenges(question):
            found = await self._sidecar.ask(self._jwt, question)
        return self._keep(question, found, asked_at)

    def token_blocking(self, question: Question) -> str:
        """Raises TokenError, and RuntimeError where waiting would block an event loop."""
        question = self._meant(question)
        if (kept := self._recall(question)) is not None:
            return kept
        if _in_event_loop():
            raise RuntimeError(
                "token_sync() would block the event loop here: make the tool `async def` and use "
                "`await token()`."
            )
        asked_at = self._now()
        with self._noting_challenges(question):
            found = self._sidecar.ask_blocking(self._jwt, question)
        return self._keep(question, found, asked_at)

    @contextmanager
    def _noting_challenges(self, question: Question) -> Iterator[None]:
        try:
            yield
        except InsufficientScope as refusal:
            if question.missing_scope is not None and refusal.challenges:
                self._challenges.put(self._jwt, refusal)
            raise

    def _meant(self, question: Question) -> Question:
        return replace(question, upstream=question.upstream or self._upstream)

    def _recall(self, question: Question) -> str | None:
        kept = self._kept.get(question.upstream)
        if (
            kept is None
            or question.rejected_token is not None
            or question.missing_scope is not None
        ):
            return None
        token, asked_at = kept
        age = self._now() - asked_at
        left = None if token.expires_in is None else token.expires_in - age
        if age > _KEPT_SECONDS or (left is not None and left <= question.min_ttl):
            return None
        return token.access_token

    def _keep(self, question: Question, token: Token, asked_at: float) -> str:
        self._kept[question.upstream] = (token, asked_at)
        return token.access_token


_current: ContextVar[Caller | None] = ContextVar("tokenward_mcp_caller", default=None)


@contextmanager
def set_current(caller: Caller | None) -> Iterator[None]:
    """Code that runs in the block, and what it starts, answers this caller."""
    before = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(before)


async def token(
    upstream: str | None = None,
    *,
    min_ttl: int = 0,
    rejected_token: str | None = None,
    missing_scope: str | None = None,
) -> str:
    """The access token that this request's user has at `upstream`.

    `upstream` may be left out where the resource has one, or the middleware names one.
    `min_ttl`: seconds (0 to 600) that it must live at least.
    `rejected_token`: one that the upstream's API refused; a fresh one is obtained, once.
    `missing_scope`: scopes that the API wants, with spaces between. Where the user has not granted
    them, this raises InsufficientScope, and the MCP client is asked to get them.
    Raises SignInRequired, TemporarilyUnavailable or another TokenError, and NoCaller.
    """
    return await _caller().token(Question(upstream, min_ttl, rejected_token, missing_scope))


def token_sync(
    upstream: str | None = None,
    *,
    min_ttl: int = 0,
    rejected_token: str | None = None,
    missing_scope: str | None = None,
) -> str:
    """`token` for plain functions.

    In a worker thread it waits. In the event loop's own thread it gives what the middleware has
    just obtained, and raises RuntimeError rather than block every other request.
    """
    question = Question(upstream, min_ttl, rejected_token, missing_scope)
    return _caller().token_blocking(question)


def answered_401(answer: Any) -> bool:
    """Whether an HTTP library's response has the status 401."""
    return 401 in (getattr(answer, "status_code", None), getattr(answer, "status", None))


async def with_token(
    call: Callable[[str], Awaitable[_T]],
    upstream: str | None = None,
    *,
    refused: Callable[[_T], bool] = answered_401,
) -> _T:
    """The result of `call(access_token)`; where `refused` says so, once more with a fresh token.

    Raises what `token` raises. A second refusal is returned, for a 401 may have other reasons.
    """
    first = await token(upstream)
    answer = await call(first)
    if not refused(answer):
        return answer
    return await call(await token(upstream, rejected_token=first))


def with_token_sync(
    call: Callable[[str], _T],
    upstream: str | None = None,
    *,
    refused: Callable[[_T], bool] = answered_401,
) -> _T:
    """`with_token` for plain functions in worker threads."""
    first = token_sync(upstream)
    answer = call(first)
    if not refused(answer):
        return answer
    return call(token_sync(upstream, rejected_token=first))


def _caller() -> Caller:
    scope = _scope_of_sdk_1()
    caller = _current.get() if scope is None else scope.get(SCOPE_KEY)
    if not isinstance(caller, Caller):
        raise NoCaller
    return caller


def _scope_of_sdk_1() -> dict[str, Any] | None:
    """The ASGI scope of the message being handled, where version 1 of the official SDK knows it."""
    module = sys.modules.get("mcp.server.lowlevel.server")
    context = getattr(module, "request_ctx", None)
    request = getattr(context.get(None), "request", None) if context is not None else None
    scope = getattr(request, "scope", None)
    return scope if isinstance(scope, dict) else None


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
