"""A plain OAuth 2.0 provider: endpoints from the configuration, the user from its userinfo."""

from typing import Any
from urllib.parse import urlsplit

from authserver.settings import OAuth2Upstream
from authserver.storage.records import Grant, UpstreamTokens
from authserver.upstream.answers import read_tokens
from authserver.upstream.client import UpstreamClient, login_url
from authserver.upstream.contract import BadAnswer
from authserver.upstream.transport import UpstreamHttp
from chassis.clock import Clock


class OAuth2:
    """An upstream without ID tokens.

    It has no issuer, so its users are known by the origin of its authorization endpoint.
    """

    def __init__(self, settings: OAuth2Upstream, http: UpstreamHttp, clock: Clock) -> None:
        self.name, self.scopes = settings.name, settings.scopes
        self.rotates_refresh_tokens = settings.rotates_refresh_tokens
        self._settings = settings
        self._client = UpstreamClient(settings.client_id, settings.client_secret(), http)
        self._http, self._clock = http, clock
        origin = urlsplit(settings.authorization_endpoint)
        self._issuer = f"{origin.scheme}://{origin.netloc}"

    async def login_url(
        self, *, redirect_uri: str, state: str, nonce: str, code_challenge: str
    ) -> str:
        return login_url(
            self._settings.authorization_endpoint,
            client_id=self._settings.client_id,
            redirect_uri=redirect_uri,
            scope=" ".join(self.scopes),
            state=state,
            code_challenge=code_challenge,
        )

    async def redeem(
        self, code: str, *, redirect_uri: str, code_verifier: str, nonce: str, issuer: str | None
    ) -> Grant:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": code_verifier,
        }
        tokens = await self._tokens(fields)
        subject = await self._subject(tokens.access_token)
        return Grant(self.name, self._issuer, subject, tokens, " ".join(self.scopes))

    async def refresh(self, refresh_token: str, *, subject: str) -> UpstreamTokens:
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self._tokens(fields, presented=refresh_token)

    async def revoke(self, tokens: UpstreamTokens) -> None:
        if self._settings.revocation_endpoint is not None:
            token = tokens.refresh_token or tokens.access_token
            await self._client.post(
                self._settings.revocation_endpoint, {"token": token}, in_body=True
            )

    async def _tokens(self, fields: dict[str, str], presented: str | None = None) -> UpstreamTokens:
        status, body = await self._client.post(self._settings.token_endpoint, fields, in_body=True)
        return read_tokens(status, body, now=int(self._clock()), presented=presented)

    async def _subject(self, access_token: str) -> str:
        """Who the token is of; empty for an upstream that is only linked, never an identity."""
        endpoint, member = self._settings.userinfo_endpoint, self._settings.subject_field
        if endpoint is None or member is None:
            return ""
        status, body = await self._http.get(endpoint, bearer=access_token)
        if status != 200:
            raise BadAnswer("userinfo_refused")
        return _subject_text(body.get(member))


def _subject_text(value: Any) -> str:
    """A subject that is a text or a whole number; a float would fold two users into one."""
    if type(value) is int:
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable():
        return value
    raise BadAnswer("userinfo_without_subject")
