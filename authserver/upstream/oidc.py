"""An OpenID provider (OpenID Connect Core)."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from authserver.config.upstreams import OidcUpstream
from authserver.oauth.parsing import Malformed, short_text, whole_number
from authserver.storage.records import Grant, UpstreamTokens
from authserver.tokens.jws import BadToken, VerifiedJws, unverified_kid, verify
from authserver.upstream.account import account_name
from authserver.upstream.client import UpstreamClient, login_url
from authserver.upstream.contract import BadAnswer, GrantRevoked, UpstreamFailure
from authserver.upstream.discovery import Discovery, Provider
from authserver.upstream.http_client import UpstreamHttp
from authserver.upstream.jwks import RemoteKeys
from authserver.upstream.token_response import read_tokens
from chassis.clock import Clock

_LEEWAY: Final = 60
_CHECK_SECONDS: Final = 2


class Oidc:
    """An upstream that is found by its issuer and names its users in ID tokens."""

    def __init__(self, settings: OidcUpstream, http: UpstreamHttp, clock: Clock) -> None:
        self.name, self.scopes = settings.name, settings.scopes
        self.display_name = settings.display_name or settings.name
        self.scope_descriptions: Mapping[str, str] = settings.scope_descriptions
        self.rotates_refresh_tokens = settings.rotates_refresh_tokens
        self.reuse_grace_seconds = settings.refresh_token_reuse_grace
        self.uses_form_post = settings.response_mode == "form_post"
        self._settings = settings
        calls = http.with_ca(settings.ca_file)
        self._issuer, self._client_id = settings.issuer, settings.client_id
        self._client = UpstreamClient(settings.client_id, settings.client_secret(), calls)
        self._discovery = Discovery(settings.issuer, calls, clock)
        self._keys = RemoteKeys(calls, clock)
        self._clock = clock

    async def login_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        nonce: str,
        code_challenge: str,
        choose_account: bool,
    ) -> str:
        provider = await self._discovery.provider()
        return login_url(
            provider.authorization_endpoint,
            client_id=self._client_id,
            redirect_uri=redirect_uri,
            scope=" ".join(self.scopes),
            state=state,
            nonce=nonce,
            code_challenge=code_challenge,
            more=self._settings.authorize_parameters,
            form_post=self.uses_form_post,
            choose_account=choose_account,
        )

    async def redeem(
        self, code: str, *, redirect_uri: str, code_verifier: str, nonce: str, issuer: str | None
    ) -> Grant:
        provider = await self._discovery.provider()
        if issuer != self._issuer and (issuer is not None or provider.sends_issuer):
            raise BadAnswer("wrong_issuer_in_callback")  # RFC 9207 section 2.4
        status, body = await self._ask(
            provider,
            grant_type="authorization_code",
            code=code,
            redirect_uri=redirect_uri,
            code_verifier=code_verifier,
        )
        tokens = read_tokens(status, body, now=int(self._clock()))
        signed = await self._signed(provider, body.get("id_token"))
        subject = self._checked_subject(signed, nonce, tokens.access_token)
        account = account_name(signed.payload)
        return Grant(self.name, self._issuer, subject, tokens, " ".join(self.scopes), account)

    async def refresh(self, refresh_token: str, *, subject: str) -> UpstreamTokens:
        provider = await self._discovery.provider()
        status, body = await self._ask(
            provider, grant_type="refresh_token", refresh_token=refresh_token
        )
        tokens = read_tokens(status, body, now=int(self._clock()), presented=refresh_token)
        if "id_token" in body:
            await self._check_same_user(provider, body["id_token"], subject)
        return tokens

    async def revoke(self, tokens: UpstreamTokens) -> None:
        provider = await self._discovery.provider()
        if provider.revocation_endpoint is not None:
            await self._client.revoke(
                provider.revocation_endpoint, tokens, in_body=self._in_body(provider)
            )

    def _in_body(self, provider: Provider) -> bool:
        configured = self._settings.client_authentication
        return provider.posts_secret if configured is None else configured == "body"

    async def _ask(self, provider: Provider, **fields: str) -> tuple[int, dict[str, Any]]:
        return await self._client.post(
            provider.token_endpoint, fields, in_body=self._in_body(provider)
        )

    async def _check_same_user(self, provider: Provider, id_token: object, subject: str) -> None:
        """A refreshed grant must stay with its user (OpenID Connect Core section 12.2).

        An ID token that cannot be verified just now proves nothing, and costs nobody a grant
        that the upstream has already renewed.
        """
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                claims = (await self._signed(provider, id_token)).payload
        except (UpstreamFailure, TimeoutError):
            return
        if claims.get("iss") != self._issuer or claims.get("sub") != subject:
            raise GrantRevoked("subject_changed")

    def _checked_subject(self, signed: VerifiedJws, nonce: str, access_token: str) -> str:
        claims = signed.payload
        expected = {
            "iss": {"essential": True, "value": self._issuer},
            "aud": {"essential": True, "value": self._client_id},
        }
        params = {"nonce": nonce, "client_id": self._client_id}
        if "at_hash" in claims:  # optional in a code flow, but never wrong
            params["access_token"] = access_token
        try:
            whole_number(claims, "exp")
            whole_number(claims, "iat")
            CodeIDToken(claims, {"alg": signed.algorithm}, expected, params).validate(
                now=int(self._clock()), leeway=_LEEWAY
            )
            return short_text(claims, "sub")
        except (JoseError, Malformed, ValueError):
            raise BadAnswer("id_token_claims") from None

    async def _signed(self, provider: Provider, id_token: object) -> VerifiedJws:
        if not isinstance(id_token, str):
            raise BadAnswer("no_id_token")
        try:
            await self._keys.learn(unverified_kid(id_token), provider.jwks_uri)
            return verify(id_token, self._keys.find, types=frozenset({"jwt", None}))
        except BadToken as refused:
            raise BadAnswer(f"id_token_{refused}") from None
