"""What every upstream needs to be its OAuth client: the login URL and client authentication."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlencode, urlsplit

from authserver.storage.records import UpstreamTokens
from authserver.upstream.contract import LoginRequest, MaySend, Unavailable, UpstreamFailure
from authserver.upstream.http_client import Answer, HttpClient, RequestFormat
from authserver.upstream.revocation_response import Revocation, check_revoked


def login_url(
    endpoint: str,
    request: LoginRequest,
    *,
    client_id: str,
    scope: str,
    scope_parameter: str = "scope",
    sends_nonce: bool = False,
    more: Mapping[str, str],
    form_post: bool,
) -> str:
    """An authorization request with PKCE. The MCP client's own parameters never reach it.

    `more` is what the operator adds for this provider.
    """
    query = {
        **more,
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": request.redirect_uri,
        scope_parameter: scope,
        "state": request.state,
        "code_challenge": request.code_challenge,
        "code_challenge_method": "S256",
    }
    if sends_nonce:
        query["nonce"] = request.nonce
    if form_post:
        query["response_mode"] = "form_post"
    if request.choose_account:
        query["prompt"] = "select_account"
    separator = "&" if urlsplit(endpoint).query else "?"
    return f"{endpoint}{separator}{urlencode(query)}"


@contextmanager
def naming(upstream: str) -> Iterator[None]:
    """Put the upstream's name on every failure that leaves the block, for the operator's log."""
    try:
        yield
    except UpstreamFailure as failure:
        failure.upstream = upstream
        raise


# How Slack refuses a token with status 200 (its page of `auth.test`).
_REFUSED_TOKENS: Final = frozenset(
    {"account_inactive", "invalid_auth", "token_expired", "token_revoked"}
)


async def accepted_at(http: HttpClient, userinfo_endpoint: str, access_token: str) -> bool:
    """Whether a userinfo endpoint takes the token. Raises UpstreamFailure.

    Only a 401 is a no, or `ok: false` with a word that says as much.
    """
    status, body = await http.get(userinfo_endpoint, bearer=access_token)
    denied = body.get("ok") is False
    if status == 401 or (denied and body.get("error") in _REFUSED_TOKENS):
        return False
    if (200 <= status < 300 and not denied) or status == 403:
        return True
    raise Unavailable("userinfo_unclear")


class UpstreamClient:
    """Our registration at an upstream; public where there is no secret."""

    def __init__(
        self,
        client_id: str,
        secret: str | None,
        http: HttpClient,
        written_as: RequestFormat = "form",
    ) -> None:
        self._client_id, self._secret, self._http = client_id, secret, http
        self._written_as = written_as

    async def post(
        self,
        url: str,
        fields: Mapping[str, str | Sequence[str]],
        *,
        in_body: bool,
        may_send: MaySend | None = None,
    ) -> Answer:
        """Post fields as this client; `in_body` where the upstream takes no Basic header.

        A field with several values is sent several times.
        """
        basic, named = None, dict(fields)
        if self._secret is None:
            named |= {"client_id": self._client_id}
        elif in_body:
            named |= {"client_id": self._client_id, "client_secret": self._secret}
        else:
            basic = (self._client_id, self._secret)
        return await self._http.post(
            url, named, basic=basic, may_send=may_send, written_as=self._written_as
        )

    async def revoke(self, revocation: Revocation, tokens: UpstreamTokens) -> None:
        """Revoke the refresh token, which ends the grant; the access token where there is none.

        Raises UpstreamFailure where the upstream does not say that it did (RFC 7009 section 2.2):
        `refused` is set where asking again is of no use.
        """
        for token in revocation.tokens_of(tokens):
            check_revoked(await self._revoke(revocation, token), revocation, tokens)

    async def _revoke(self, revocation: Revocation, token: str) -> Answer:
        if revocation.sends == "bearer":
            return await self._http.post(revocation.url, {}, bearer=token)
        fields = {revocation.parameter: token}
        if revocation.method == "POST":
            return await self.post(revocation.url, fields, in_body=revocation.in_body)
        credentials = (self._client_id, self._secret or "")
        return await self._http.post(
            revocation.url, fields, basic=credentials, written_as="json", method="DELETE"
        )
