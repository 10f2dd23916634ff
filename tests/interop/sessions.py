"""A session of an MCP client with a server, by JWT."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import aiohttp


def jwt(number: int, signature: str = "good") -> str:
    """Alice's `number`-th JWT from the same client."""
    parts = ({"alg": "ES256"}, {"sub": "alice", "client_id": "c-1", "n": number})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), signature])


@dataclass
class Session:
    """An MCP session as JSON-RPC over HTTP, with another JWT for each message if wanted."""

    http: aiohttp.ClientSession
    url: str
    id: str = ""

    async def post(
        self, message: Any, token: str, **headers: str
    ) -> tuple[int, str, aiohttp.ClientResponse]:
        given = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-06-18",
            **({"Mcp-Session-Id": self.id} if self.id else {}),
            **headers,
        }
        async with self.http.post(self.url, json=message, headers=given) as answer:
            return answer.status, await answer.text(), answer

    async def initialize(self, token: str) -> None:
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        asked = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
        status, text, answer = await self.post(asked, token)
        assert status == 200, text
        self.id = answer.headers["Mcp-Session-Id"]
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, token)

    async def call(self, tool: str, token: str) -> Any:
        parameters = {"name": tool, "arguments": {}}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
        status, text, _ = await self.post(asked, token)
        assert status == 200, text
        data = [line[5:] for line in text.splitlines() if line.startswith("data:")] or [text]
        result = json.loads(data[-1])["result"]
        assert not result.get("isError"), result
        return json.loads(result["content"][0]["text"])
