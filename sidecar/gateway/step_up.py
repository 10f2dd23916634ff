"""A scope is missing: the client of the MCP server gets a challenge that it can follow.

A tool that calls an API learns of it behind the gateway, through Attach or from the API itself. A
server that knows nothing of OAuth cannot tell its client, so the gateway does.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from chassis.http1.no_response import NoResponse
from chassis.http1.request import Headers
from chassis.http1.streamed_response import StreamedResponse
from sidecar.bearer_challenge import challenge_parameters, challenged_scope
from sidecar.cached_token import CachedToken
from sidecar.errors import INSUFFICIENT_SCOPE, ApiError
from sidecar.gateway import errors
from sidecar.gateway.relay import is_event_stream
from sidecar.gateway.routing import Call
from sidecar.missing_scope import FORBIDDEN, missing_scope
from sidecar.pending_challenges import PendingChallenges
from sidecar.protected_resource import ProtectedResource
from sidecar.token_request import TokenRequest

Obtain = Callable[[str, TokenRequest], Coroutine[Any, Any, CachedToken | ApiError]]

_CALLING: Final = "POST"
_CHALLENGE: Final = "www-authenticate"
_MAX_READ_AHEAD: Final = 16 * 1024
# Comments, and an event that only says where to resume, tell the client nothing yet.
_DATA: Final = re.compile(rb"(?:^|[\r\n])data:[ ]?[^\r\n ]")


class Examined(NamedTuple):
    """What of the app's response was read, and whether its challenge goes on."""

    begun: bytes
    keeps_challenge: bool


UNREAD: Final = Examined(b"", keeps_challenge=True)


class StepUps:
    """`obtain` is the token source's; `first_event` is how long a response's first event may take.

    A response that is a stream of events has its head held back until then, for a head cannot be
    taken back.
    """

    def __init__(
        self,
        obtain: Obtain,
        pending: PendingChallenges,
        resource: ProtectedResource,
        token_request: TokenRequest,
        first_event: float,
    ) -> None:
        self._obtain, self._pending, self._resource = obtain, pending, resource
        self._token_request, self._first_event = token_request, first_event

    def pending(self, method: str, unverified_jwt: str) -> ApiError | None:
        """The challenge that came too late for an earlier call of this client."""
        return self._pending.take(unverified_jwt) if method == _CALLING else None

    def has_to_wait(self, method: str, response: StreamedResponse) -> bool:
        """Whether `examine` reads or asks; where it does not, `pending` says the same."""
        if method == _CALLING and is_event_stream(response):
            return True
        return response.status == FORBIDDEN and self._is_foreign(response.headers)

    async def examine(
        self, method: str, call: Call, token: CachedToken, response: StreamedResponse
    ) -> Examined | ApiError:
        """The response as far as it was read, or the refusal that the client gets instead."""
        begun = b""
        if method == _CALLING and is_event_stream(response):
            try:
                begun = await self._begin(response)
            except NoResponse:
                return errors.APP_BAD_RESPONSE.with_reason("app_response_broken_off")
        if challenge := self.pending(method, call.unverified_jwt):
            return challenge
        if response.status != FORBIDDEN or not self._is_foreign(response.headers):
            return UNREAD._replace(begun=begun) if begun else UNREAD
        refusal = await self._refusal(call, token, response)
        return Examined(begun, keeps_challenge=False) if refusal is None else refusal

    async def _begin(self, response: StreamedResponse) -> bytes:
        begun = b""
        try:
            async with asyncio.timeout(self._first_event):
                while _DATA.search(begun) is None and len(begun) < _MAX_READ_AHEAD:
                    piece = await response.next(None)
                    if not piece:
                        break
                    begun += piece
        except TimeoutError:
            pass
        return begun

    def _is_foreign(self, headers: Headers) -> bool:
        """Whether the app passes on a challenge that is neither ours nor about its own scopes.

        A client that followed it would ask our authserver for scopes that mean nothing there.
        """
        values = headers.get_all(_CHALLENGE)
        scope = challenged_scope(values)
        if scope is None or set(scope.split()) <= set(self._resource.scopes):
            return False
        return challenge_parameters(values).get("resource_metadata") != self._resource.metadata_url

    async def _refusal(
        self, call: Call, token: CachedToken, response: StreamedResponse
    ) -> ApiError | None:
        """The authserver's refusal, where the challenge is about what its user can be asked for."""
        rules = [api.missing_scope for api in token.apis if api.missing_scope is not None]
        if rules:  # all have the same scopes to ask for
            rule = next((one for one in rules if one.any_of), rules[0])
            missing = missing_scope(rule, response.status, response.headers, None, token.scopes)
        else:
            missing = challenged_scope(response.headers.get_all(_CHALLENGE))
        if missing is None:
            return None
        wanted = self._token_request._replace(missing_scope=missing)
        outcome = await self._obtain(call.unverified_jwt, wanted)
        self._pending.take(call.unverified_jwt)
        if isinstance(outcome, ApiError) and outcome.error == INSUFFICIENT_SCOPE.error:
            return outcome
        return None
