"""A sample MCP server whose tool acts as the signed-in user: what an author of one would write.

`TokenwardMiddleware` and `with_token` are all of Tokenward in it. The rest is what every MCP server
with sign-in needs: it verifies the JWT its client sends and says, when there is none, where to get
one.
"""

import asyncio
import os
import ssl
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from urllib.parse import urlsplit

import httpx2
import jwt
import uvicorn
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware

from tokenward_mcp import TokenError, TokenwardMiddleware, with_token


class Account(BaseModel):
    """Who the upstream says this user is."""

    login: str
    id: int
    name: str


def build(
    http: httpx2.AsyncClient,
    *,
    name: str,
    resource: str,
    issuer: str,
    scopes: list[str],
    tokenward_url: str,
    api: str,
    host: str = "127.0.0.1",
) -> Starlette:
    """The server as an ASGI application, which its own verifier and then Tokenward guard."""
    server: MCPServer = MCPServer(
        name,
        log_level="WARNING",
        token_verifier=AuthserverTokens(issuer=issuer, resource=resource),
        # From texts: a URL type made here would add a slash to the issuer, and clients compare it.
        auth=AuthSettings.model_validate(
            {
                "issuer_url": issuer,
                "resource_server_url": resource,
                "required_scopes": scopes,
                "validate_token_resource": True,
            }
        ),
    )

    async def ask_the_api(access_token: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {access_token}"}
        return await http.get(f"{api}/api/user", headers=headers)

    @server.tool()
    async def whoami() -> Account:
        """Say which account of the upstream this user has."""
        try:
            answer = await with_token(ask_the_api)
        except TokenError as refused:  # the SDK shows clients the text of no other exception
            raise ToolError(str(refused)) from None
        if answer.is_error:
            raise ToolError(f"the upstream API answered {answer.status_code}")
        return Account.model_validate(answer.json())

    app = server.streamable_http_app(transport_security=own_host(resource), host=host)
    # At the end of the list: behind the SDK's check, so that only good JWTs are asked about.
    app.user_middleware.append(Middleware(TokenwardMiddleware, url=tokenward_url))
    return app


def own_host(resource: str) -> TransportSecuritySettings:
    """Requests for another host are refused: a name that leads here by a trick (DNS rebinding)."""
    return TransportSecuritySettings(allowed_hosts=[urlsplit(resource).netloc])


class AuthserverTokens(TokenVerifier):
    """Accepts the authserver's access tokens for this resource (RFC 9068) and nothing else."""

    def __init__(self, *, issuer: str, resource: str) -> None:
        self._issuer, self._resource = issuer, resource
        self._keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", timeout=5)

    async def verify_token(self, token: str) -> AccessToken | None:
        """None for a token that is not accepted.

        Raises PyJWKClientConnectionError when the keys cannot be had: an outage must not look
        like a bad token, which would send the user to sign in again.
        """
        try:
            key = await asyncio.to_thread(self._keys.get_signing_key_from_jwt, token)
            verified = jwt.decode_complete(
                token,
                key,
                algorithms=["ES256"],
                issuer=self._issuer,
                audience=self._resource,
                options={
                    "strict_aud": True,
                    "require": ["iss", "aud", "exp", "iat", "sub", "client_id", "tsid"],
                },
            )
        except jwt.PyJWKClientConnectionError:
            raise
        except jwt.PyJWTError:
            return None
        if verified["header"].get("typ") != "at+jwt":
            return None
        claims = verified["payload"]
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims.get("scope", "").split(),
            expires_at=claims["exp"],
            resource=claims["aud"],
            subject=claims["sub"],
            claims={"iss": claims["iss"]},
        )


async def _serve(given: Namespace) -> None:
    # The environment's proxies are not for loopback.
    trusted = ssl.create_default_context()
    async with httpx2.AsyncClient(trust_env=False, verify=trusted) as http:
        app = build(
            http,
            name=given.name,
            resource=given.resource,
            issuer=given.issuer,
            scopes=given.scopes.split(),
            tokenward_url=os.environ["TOKENWARD_URL"],  # noqa: TID251 - set by the webhook
            api=given.api,
            host=given.host,
        )
        await uvicorn.Server(
            uvicorn.Config(
                app,
                host=given.host,
                port=given.port,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        ).serve()


def options() -> ArgumentParser:
    """The command line of this server, and of programs that build on it."""
    parser = ArgumentParser(prog="python -m demo.mcp_server", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--resource", required=True, help="the URL clients know this server by")
    parser.add_argument("--issuer", required=True, help="the authserver's issuer")
    parser.add_argument("--scopes", default="mcp")
    parser.add_argument("--api", required=True, help="the upstream's API")
    return parser


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(options().parse_args()))
