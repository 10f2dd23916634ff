"""A provider that exchanges tokens too (RFC 8693), as strict as the standard lets it be.

It takes only access tokens that it gave and that are not over, and remembers every exchange. A test
scripts how the next ones go with `then_exchange`.
"""

import asyncio
from collections import deque
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from tests.fakes.upstream import Answer, HostileUpstream

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class ExchangingUpstream(HostileUpstream):
    def __init__(self, *, lifetime: int | None = 100, gives_refresh_tokens: bool = False) -> None:
        super().__init__(lifetime=lifetime)
        self.gives_refresh_tokens = gives_refresh_tokens
        self.exchanges: list[dict[str, list[str]]] = []
        self.clients: list[str] = []
        self.given: set[str] = set()
        self.over: set[str] = set()
        self.made = 0
        self._next_exchange: deque[Answer] = deque()
        self._exchanged = asyncio.Condition()

    def then_exchange(self, *answers: Answer) -> None:
        self._next_exchange.extend(answers)

    async def until_exchanged(self, count: int) -> None:
        async with self._exchanged:
            await self._exchanged.wait_for(lambda: len(self.exchanges) >= count)

    def tokens(self, subject: str = "user-1", **claims: Any) -> dict[str, Any]:
        answer = super().tokens(subject, **claims)
        self.given.add(answer["access_token"])
        return answer

    async def _token(self, request: web.Request) -> web.StreamResponse:
        fields = parse_qs((await request.read()).decode(), strict_parsing=True)
        if fields["grant_type"] != [GRANT_TYPE]:
            return await super()._token(request)
        self.clients.append(request.headers.get("Authorization", ""))
        async with self._exchanged:
            self.exchanges.append(fields)
            self._exchanged.notify_all()
        usual = self._usual(fields)
        if self._next_exchange:
            return await self._next_exchange.popleft()(request, usual)
        (subject_token,) = fields["subject_token"]
        if fields["subject_token_type"] != [ACCESS_TOKEN] or (
            subject_token not in self.given - self.over
        ):
            return web.json_response({"error": "invalid_request"}, status=400)
        return web.json_response(usual)

    def _usual(self, fields: dict[str, list[str]]) -> dict[str, Any]:
        self.made += 1
        answer: dict[str, Any] = {
            "access_token": f"made-{self.made}",
            "issued_token_type": fields["requested_token_type"][0],
            "token_type": "Bearer",
        }
        if self.lifetime is not None:
            answer["expires_in"] = self.lifetime
        if self.gives_refresh_tokens:
            answer["refresh_token"] = f"renew-{self.made}"
        if "scope" in fields:
            answer["scope"] = fields["scope"][0]
        return answer
