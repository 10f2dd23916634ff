"""An MCP server with our middleware, run by the Python of its own environment.

`server.py KIND` listens on a free port and prints it. It checks JWTs itself, in the way of its SDK:
one whose signature reads `good` is good. The tool `whoami` says which token its caller has.
"""

# mypy: ignore-errors
# This runs against other versions of the libraries than the ones that are type-checked here.

import base64
import json
import socket
import sys

import uvicorn
from starlette.middleware import Middleware

from tokenward_mcp import TokenwardMiddleware, token, token_sync

ISSUER = "https://auth.example"
RESOURCE = "https://notes.example/mcp"


def claims_of(jwt: str) -> dict | None:
    _, payload, signature = jwt.split(".")
    if signature != "good":
        return None
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def fastmcp():
    """FastMCP, any version that has `http_app(middleware=…)`."""
    from fastmcp import FastMCP
    from fastmcp.server.auth import AccessToken, RemoteAuthProvider, TokenVerifier

    class Verifier(TokenVerifier):
        async def verify_token(self, jwt):
            return _access_token(AccessToken, jwt)

    auth = RemoteAuthProvider(
        token_verifier=Verifier(),
        authorization_servers=[ISSUER],
        base_url="https://notes.example",
    )
    mcp = FastMCP("notes", auth=auth)
    _add_tools(mcp.tool)
    return mcp.http_app(middleware=[Middleware(TokenwardMiddleware)])


def official_1():
    """The official SDK, version 1, with the sessions it makes by default."""
    from mcp.server.auth.provider import AccessToken, TokenVerifier
    from mcp.server.auth.settings import AuthSettings
    from mcp.server.fastmcp import FastMCP

    class Verifier(TokenVerifier):
        async def verify_token(self, token):
            return _access_token(AccessToken, token)

    auth = AuthSettings(issuer_url=ISSUER, resource_server_url=RESOURCE)
    mcp = FastMCP("notes", token_verifier=Verifier(), auth=auth)
    _add_tools(mcp.tool())
    return _behind_the_sdks_check(mcp.streamable_http_app())


def official_2():
    """The official SDK, version 2."""
    from mcp.server.auth.provider import AccessToken, TokenVerifier
    from mcp.server.auth.settings import AuthSettings
    from mcp.server.mcpserver import MCPServer

    class Verifier(TokenVerifier):
        async def verify_token(self, token):
            return _access_token(AccessToken, token)

    auth = AuthSettings.model_validate({"issuer_url": ISSUER, "resource_server_url": RESOURCE})
    mcp = MCPServer("notes", token_verifier=Verifier(), auth=auth)
    _add_tools(mcp.tool())
    return _behind_the_sdks_check(mcp.streamable_http_app())


def _behind_the_sdks_check(app):
    app.user_middleware.append(Middleware(TokenwardMiddleware))
    return app


def _access_token(kind, jwt):
    claims = claims_of(jwt)
    if claims is None:
        return None
    known = {"token": jwt, "client_id": claims["client_id"], "scopes": [], "resource": RESOURCE}
    return kind(**known)


def _add_tools(tool):
    async def whoami() -> dict[str, str]:
        return {"token": await token()}

    def whoami_sync() -> dict[str, str]:
        return {"token": token_sync()}

    tool(whoami)
    tool(whoami_sync)


if __name__ == "__main__":
    app = {"fastmcp": fastmcp, "official_1": official_1, "official_2": official_2}[sys.argv[1]]()
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)  # noqa: T201 - for the test
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
