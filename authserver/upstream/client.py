"""What every upstream needs to be its OAuth client: the login URL and client authentication."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from authserver.storage.records import UpstreamTokens
from authserver.upstream.http_client import HttpClient


def login_url(
    endpoint: str,
    *,
    client_id: str,
    redirect_uri: str,
    scope: str,
    state: str,
    code_challenge: str,
    nonce: str | None = None,
    scope_parameter: str = "scope",
    more: Mapping[str, str],
    form_post: bool,
    choose_account: bool,
) -> str:
    """An authorization request with PKCE. The MCP client's own parameters never reach it.

    `more` is what the operator adds for this provider.
    """
    query = {
        **more,
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        scope_parameter: scope,
        "state": state,
        "code_challenge": code_challenge,
        "code_challenge_method": "S256",
    }
    if nonce is not None:
        query["nonce"] = nonce
    if form_post:
        query["response_mode"] = "form_post"
    if choose_account:
        query["prompt"] = "select_account"
    separator = "&" if urlsplit(endpoint).query else "?"
    return f"{endpoint}{separator}{urlencode(query)}"


class UpstreamClient:
    """Our registration at an upstream; public where there is no secret."""

    def __init__(self, client_id: str, secret: str | None, http: HttpClient) -> None:
        self._client_id, self._secret, self._http = client_id, secret, http

    async def post(
        self, url: str, fields: dict[str, str], *, in_body: bool
    ) -> tuple[int, dict[str, Any]]:
        """Post a form as this client; `in_body` where the upstream takes no Basic header."""
        if self._secret is None:
            return await self._http.post(url, fields | {"client_id": self._client_id})
        if in_body:
            credentials = {"client_id": self._client_id, "client_secret": self._secret}
            return await self._http.post(url, fields | credentials)
        return await self._http.post(url, fields, basic=(self._client_id, self._secret))

    async def revoke(self, url: str, tokens: UpstreamTokens, *, in_body: bool) -> None:
        """Revoke the refresh token, which ends the grant; the access token where there is none."""
        await self.post(
            url, {"token": tokens.refresh_token or tokens.access_token}, in_body=in_body
        )
