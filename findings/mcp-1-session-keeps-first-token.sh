#!/usr/bin/env bash
# mcp 1.x (official Python SDK): get_access_token() gives the JWT of the session's first request.
#
# A streamable HTTP session runs its tools in a task that the first request started, so the context
# variable behind get_access_token() keeps what it held then. After the client has refreshed, a tool
# still acts with the old JWT, and fails once that one has expired. The request itself is right:
# ctx.request_context.request. Version 2 hands each message its sender's context.
#
# Prints the version and what a tool sees for the second JWT of a session; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mcp==1.30.0
cat > "$work/show.py" <<'PY'
import json
from importlib.metadata import version

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.fastmcp import Context, FastMCP
from starlette.testclient import TestClient


class Verifier(TokenVerifier):
    async def verify_token(self, token):
        return AccessToken(token=token, client_id="c-1", scopes=[])


auth = AuthSettings(issuer_url="https://auth.example", resource_server_url="https://mcp.example/mcp")
mcp = FastMCP(
    "show", token_verifier=Verifier(), auth=auth, json_response=True, log_level="ERROR"
)


@mcp.tool()
async def seen(ctx: Context) -> dict[str, str]:
    sent = ctx.request_context.request.headers["authorization"].removeprefix("Bearer ")
    return {"get_access_token": get_access_token().token, "request": sent}


def post(client, session, token, message):
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "Host": "127.0.0.1:8000",
        **session,
    }
    answer = client.post("/mcp", json={"jsonrpc": "2.0", **message}, headers=headers)
    answer.raise_for_status()
    return answer


with TestClient(mcp.streamable_http_app()) as client:
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "show", "version": "1"},
    }
    begun = post(client, {}, "first-token", {"id": 0, "method": "initialize", "params": hello})
    session = {"Mcp-Session-Id": begun.headers["Mcp-Session-Id"]}
    post(client, session, "first-token", {"method": "notifications/initialized"})
    call = {"id": 1, "method": "tools/call", "params": {"name": "seen", "arguments": {}}}
    result = post(client, session, "refreshed-token", call).json()["result"]

found = json.loads(result["content"][0]["text"])
print("mcp", version("mcp"))
print("the request carries       refreshed-token")
print("get_access_token() says  ", found["get_access_token"])
print("ctx.request_context says ", found["request"])
assert found == {"get_access_token": "first-token", "request": "refreshed-token"}, "this has changed"
PY
"$work/venv/bin/python" "$work/show.py"
