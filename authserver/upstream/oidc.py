"""An OpenID provider (OpenID Connect Core)."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

from joserfc.errors import JoseError

from authserver.config.upstreams import OidcUpstream
from authserver.oauth.parsing import Malformed, short_text, whole_number
from authserver.storage.records import ClientRegistration, Grant, UpstreamTokens
from authserver.tokens.algorithms import UPSTREAMS
from authserver.tokens.jws import (
    KEY_HINTS,
    BadToken,
    VerifiedJws,
    unverified_kid,
    verify,
)
from authserver.upstream.account import account_name
from authserver.upstream.account_origins import AccountHosts
from authserver.upstream.client import UpstreamClient, accepted_at, login_url, naming
from authserver.upstream.contract import (
    BadAnswer,
    CallbackResponse,
    FormerUpstream,
    GrantRevoked,
    LoginRequest,
    MaySend,
    RefreshRequest,
    UpstreamFailure,
)
from authserver.upstream.discovery import Discovery, Provider
from authserver.upstream.http_client import Answer, UpstreamHttp
from authserver.upstream.jwks import RemoteKeys
from authserver.upstream.revocation_response import Revocation
from authserver.upstream.token_response import TokenRules, read_tokens
from chassis.clock import Clock

_LEEWAY: Final = 60
_CHECK_SECONDS: Final = 2
_TIMES: Final = ("exp", "iat", "nbf", "auth_time")
_CLAIMS: Final = frozenset({*_TIMES, "iss", "aud", "azp", "sub", "nonce", "at_hash", "amr"})


class Oidc:
    """An upstream that is found by its issuer and names its users in ID tokens."""

    def __init__(self, settings: OidcUpstream, http: UpstreamHttp, clock: Clock) -> None:
        self.name, self.scopes = settings.name, settings.scopes
        self.step_up_scopes = settings.step_up_scopes
        self.display_name = settings.display_name or settings.name
        self.scope_descriptions: Mapping[str, str] = settings.scope_descriptions
        self.registration = ClientRegistration(settings.issuer, settings.client_id)
        self.user_issuer = settings.issuer
        self.rotates_refresh_tokens = settings.rotates_refresh_tokens
        self.reuse_grace_seconds = settings.refresh_token_reuse_grace
        self.repeats_uncertain_refresh = settings.may_repeat_uncertain_refresh
        self.revocation_ends_grant = settings.revocation_ends_grant
        self.exchange_only, self.made_of = settings.exchange_only, ""
        self.uses_form_post = settings.response_mode == "form_post"
        self.former = tuple(
            FormerUpstream(Oidc(settings.as_registered(former), http, clock), former.ends_at)
            for former in settings.former
        )
        self._settings = settings
        self._http = http.client(settings.ca_file, settings.proxy)
        self._issuer, self._client_id = settings.issuer, settings.client_id
        self._client = UpstreamClient(settings.client_id, settings.client_secret(), self._http)
        self._rules = TokenRules(
            dead_grant=settings.dead_grant_errors,
            account_hosts=AccountHosts(settings.name, settings.account_hosts),
        )
        self._discovery = Discovery(settings.issuer, self._http, clock)
        self._keys = RemoteKeys(self._http, clock, UPSTREAMS)
        self._clock = clock

    async def login_url(self, request: LoginRequest) -> str:
        with naming(self.name):
            provider = await self._discovery.provider()
        return login_url(
            provider.authorization_endpoint,
            request,
            client_id=self._client_id,
            scope=" ".join((*self.scopes, *request.more_scopes)),
            sends_nonce=True,
            more=self._settings.authorize_parameters,
            form_post=self.uses_form_post,
        )

    async def redeem(self, response: CallbackResponse) -> Grant:
        with naming(self.name):
            return await self._redeemed(response)

    async def _redeemed(self, response: CallbackResponse) -> Grant:
        provider = await self._discovery.provider()
        issuer = response.issuer
        if issuer != self._issuer and (issuer is not None or provider.sends_issuer):
            raise BadAnswer("wrong_issuer_in_callback", member="iss")  # RFC 9207 section 2.4
        fields = self._settings.token_parameters | {
            "grant_type": "authorization_code",
            "code": response.code,
            "redirect_uri": response.redirect_uri,
            "code_verifier": response.code_verifier,
        }
        answer = await self._post(provider, fields)
        tokens = read_tokens(answer, self._rules, now=int(self._clock()))
        signed = await self._signed(provider, answer.body.get("id_token"))
        subject = self._checked_subject(signed, response.nonce, tokens.access_token)
        scope = " ".join((*self.scopes, *response.more_scopes))
        account = account_name(signed.payload)
        return Grant(self.name, self._issuer, subject, tokens, scope, account, self.registration)

    async def refresh(self, request: RefreshRequest) -> UpstreamTokens:
        assert request.tokens.refresh_token is not None
        fields = self._settings.refresh_parameters | {
            "grant_type": "refresh_token",
            "refresh_token": request.tokens.refresh_token,
        }
        with naming(self.name):
            provider = await self._discovery.provider()
            answer = await self._post(provider, fields, request.may_send)
            now = int(self._clock())
            tokens = read_tokens(answer, self._rules, now=now, previous=request.tokens)
            if "id_token" in answer.body:
                await self._check_same_user(provider, answer.body["id_token"], request.subject)
            return tokens

    async def accepts(self, access_token: str) -> bool | None:
        with naming(self.name):
            endpoint = (await self._discovery.provider()).userinfo_endpoint
            if endpoint is None:
                return None
            return await accepted_at(self._http, endpoint, access_token)

    async def revoke(self, tokens: UpstreamTokens) -> bool:
        with naming(self.name):
            provider = await self._discovery.provider()
            if provider.revocation_endpoint is not None:
                revocation = Revocation(provider.revocation_endpoint, self._in_body(provider))
                await self._client.revoke(revocation, tokens)
            return provider.revocation_endpoint is not None

    def _in_body(self, provider: Provider) -> bool:
        configured = self._settings.client_authentication
        return provider.posts_secret if configured is None else configured == "body"

    async def _post(
        self, provider: Provider, fields: dict[str, str], may_send: MaySend | None = None
    ) -> Answer:
        return await self._client.post(
            provider.token_endpoint, fields, in_body=self._in_body(provider), may_send=may_send
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
        # With the first sign-in, whose calls of the upstream take longer: no start needs it.
        from authlib.oidc.core import CodeIDToken

        claims = _whole_seconds(signed.payload)
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
            # Authlib knows the at_hash of the older name only; the curve and the hash are one.
            name = "EdDSA" if signed.algorithm == "Ed25519" else signed.algorithm
            CodeIDToken(claims, {"alg": name}, expected, params).validate(
                now=int(self._clock()), leeway=_LEEWAY
            )
            return short_text(claims, "sub")
        except (JoseError, Malformed, ValueError) as wrong:
            raise BadAnswer("id_token_claims", member=_claim_of(wrong)) from None

    async def _signed(self, provider: Provider, id_token: object) -> VerifiedJws:
        if not isinstance(id_token, str):
            raise BadAnswer("no_id_token", member="id_token")
        try:
            await self._keys.learn(unverified_kid(id_token), provider.jwks_uri)
            return verify(
                id_token,
                self._keys.find,
                types=frozenset({"jwt", None}),
                ignored_headers=KEY_HINTS,
            )
        except BadToken as refused:
            raise BadAnswer(f"id_token_{refused}", member="id_token") from None


def _whole_seconds(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims with times rounded down: a NumericDate may have a fraction (RFC 7519 2)."""
    return claims | {
        name: int(value)
        for name in _TIMES
        if isinstance(value := claims.get(name), float) and abs(value) < 2**53
    }


def _claim_of(wrong: Exception) -> str:
    """The claim that a checker complains of, where it says so."""
    words = re.findall(r"[a-z_]+", str(wrong))
    return next((word for word in words if word in _CLAIMS), "id_token")
