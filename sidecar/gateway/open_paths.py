"""Requests to open paths: they go to the app without a token, and not many at a time."""

from typing import Final

from chassis.http1.response import StreamResponse
from sidecar.errors import ApiError
from sidecar.gateway import errors
from sidecar.gateway.app_calls import AppCalls
from sidecar.gateway.app_responses import AppResponses, Relayed
from sidecar.gateway.passing import Passing
from sidecar.gateway.routing import OpenCall

MAX_OPEN_CALLS: Final = 64


class OpenPaths:
    """Relays them, at most `MAX_OPEN_CALLS` at a time."""

    def __init__(self, calls: AppCalls, responses: AppResponses) -> None:
        self._calls, self._responses = calls, responses
        self._under_way = 0

    async def relay(self, passing: Passing, route: OpenCall) -> Relayed:
        """Forward the request; what the app responds, or a refusal."""
        if self._under_way >= MAX_OPEN_CALLS:
            return errors.SERVER_FULL.with_reason("open_calls")
        self._under_way += 1
        relayed: Relayed | None = None
        try:
            response = await self._calls.open(passing, route.head)
            if isinstance(response, ApiError):
                return response
            relayed = self._responses.at_once(passing.request, response, self._is_over)
            if relayed is None:
                relayed = await self._responses.when_whole(passing.request, response)
            return relayed
        finally:
            if not isinstance(relayed, StreamResponse):
                self._is_over()

    def _is_over(self) -> None:
        self._under_way -= 1
