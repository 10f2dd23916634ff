"""A plain OAuth 2.0 provider: endpoints from the configuration, the user from its userinfo."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from authserver.config.upstreams import OAuth2Upstream
from authserver.oauth.parsing import Malformed, whole_number
from authserver.storage.records import ClientRegistration, Grant, UpstreamTokens
from authserver.tokens.jws import BadToken, unverified_claims
from authserver.upstream.account import account_name
from authserver.upstream.account_origins import AccountHosts
from authserver.upstream.client import UpstreamClient, accepted_at, login_url, naming
from authserver.upstream.contract import (
    BadAnswer,
    CallbackResponse,
    FormerUpstream,
    LoginRequest,
    MaySend,
    RefreshRequest,
)
from authserver.upstream.http_client import Answer, UpstreamHttp
from authserver.upstream.revocation_response import Revocation
from authserver.upstream.token_response import TokenRules, read_tokens, value_at
from chassis.clock import Clock

_LEEWAY: Final = 60


class OAuth2:
    """An upstream without ID tokens.

    It has no issuer, so its users are known by the origin of its authorization endpoint.
    """

    def __init__(self, settings: OAuth2Upstream, http: UpstreamHttp, clock: Clock) -> None:
        self.name, self.scopes = settings.name, settings.scopes
        self.step_up_scopes = settings.step_up_scopes
        self.display_name = settings.display_name or settings.name
        self.scope_descriptions: Mapping[str, str] = settings.scope_descriptions
        self.registration = ClientRegistration(settings.token_endpoint, settings.client_id)
        self.rotates_refresh_tokens = settings.rotates_refresh_tokens
        self.reuse_grace_seconds = settings.refresh_token_reuse_grace
        self.repeats_uncertain_refresh = settings.may_repeat_uncertain_refresh
        self.revocation_ends_grant = settings.revocation_ends_grant
        self.exchange_only, self.made_of = settings.exchange_only, ""
        self.uses_form_post = settings.response_mode == "form_post"
        self.former = tuple(
            FormerUpstream(OAuth2(settings.as_registered(former), http, clock), former.ends_at)
            for former in settings.former
        )
        self._settings = settings
        self._clock = clock
        self._http = http.client(settings.ca_file, settings.proxy, settings.request_headers)
        self._client = UpstreamClient(
            settings.client_id,
            settings.client_secret(),
            self._http,
            settings.request_format,
        )
        self._in_body = settings.client_authentication != "basic"
        self._rules = TokenRules(
            settings.token_types,
            type_may_be_absent=True,
            scope_separator=settings.answered_scope_separator,
            scope_member=settings.answered_scope_member,
            dead_grant=settings.dead_grant_errors,
            account_hosts=AccountHosts(settings.name, settings.account_hosts),
        )
        origin = urlsplit(settings.authorization_endpoint)
        self.user_issuer = f"{origin.scheme}://{origin.netloc}"

    async def login_url(self, request: LoginRequest) -> str:
        return login_url(
            self._settings.authorization_endpoint,
            request,
            client_id=self._settings.client_id,
            scope=self._settings.scope_separator.join((*self.scopes, *request.more_scopes)),
            scope_parameter=self._settings.scope_parameter,
            more=self._settings.authorize_parameters,
            form_post=self.uses_form_post,
        )

    async def redeem(self, response: CallbackResponse) -> Grant:
        fields = self._settings.token_parameters | {
            "grant_type": "authorization_code",
            "code": response.code,
            "redirect_uri": response.redirect_uri,
            "code_verifier": response.code_verifier,
        }
        with naming(self.name):
            answer = await self._post(self._settings.token_endpoint, fields)
            tokens = read_tokens(self._granting(answer), self._rules, now=int(self._clock()))
            subject, account = await self._user(tokens.access_token, answer.body)
        scope = " ".join((*self.scopes, *response.more_scopes))
        return Grant(
            self.name, self.user_issuer, subject, tokens, scope, account, self.registration
        )

    async def refresh(self, request: RefreshRequest) -> UpstreamTokens:
        assert request.tokens.refresh_token is not None
        fields = self._settings.refresh_parameters | {
            "grant_type": "refresh_token",
            "refresh_token": request.tokens.refresh_token,
        }
        endpoint = self._settings.refresh_endpoint or self._settings.token_endpoint
        with naming(self.name):
            answer = self._granting(await self._post(endpoint, fields, request.may_send))
            now = int(self._clock())
            return read_tokens(answer, self._rules, now=now, previous=request.tokens)

    async def accepts(self, access_token: str) -> bool | None:
        endpoint = self._settings.userinfo_endpoint
        if endpoint is None:
            return None
        with naming(self.name):
            return await accepted_at(self._http, endpoint, access_token)

    async def revoke(self, tokens: UpstreamTokens) -> bool:
        settings = self._settings
        if settings.revocation_endpoint is None:
            return False
        client_id = quote(settings.client_id, safe="")
        revocation = Revocation(
            settings.revocation_endpoint.replace("{clientId}", client_id),
            self._in_body,
            settings.revocation_sends,
            settings.revocation_parameter,
            settings.revocation_method,
        )
        with naming(self.name):
            await self._client.revoke(revocation, tokens)
        return True

    async def _post(
        self, endpoint: str, fields: dict[str, str], may_send: MaySend | None = None
    ) -> Answer:
        return await self._client.post(endpoint, fields, in_body=self._in_body, may_send=may_send)

    def _granting(self, answer: Answer) -> Answer:
        """The answer with the part of its body that holds the user's token."""
        return replace(answer, body=_nested(answer.body, self._settings.token_path))

    async def _user(self, access_token: str, answer: dict[str, Any]) -> tuple[str, str]:
        """Subject and account name of whom the token is of.

        The subject is empty for an upstream that is only linked, never an identity.
        """
        settings, fields = self._settings, self._settings.subject_fields
        if not fields:
            return "", ""
        if settings.subject_from == "token":
            return _subject(answer, fields), ""
        if settings.subject_from == "idToken":
            claims = self._id_claims(answer.get("id_token"))
            return _subject(claims, fields), account_name(claims)
        if settings.userinfo_endpoint is None:
            return "", ""
        status, body = await self._http.get(settings.userinfo_endpoint, bearer=access_token)
        if status != 200:
            raise BadAnswer("userinfo_refused", member="userinfoEndpoint")
        return _subject(body, fields), account_name(body)

    def _id_claims(self, id_token: object) -> dict[str, Any]:
        """The claims of an ID token that came from the token endpoint just now.

        TLS vouches for it in place of the signature (OpenID Connect Core section 3.1.3.7, item 6).
        """
        if not isinstance(id_token, str):
            raise BadAnswer("no_id_token", member="id_token")
        try:
            claims = unverified_claims(id_token)
            until = whole_number(claims, "exp")
        except BadToken as refused:
            raise BadAnswer(f"id_token_{refused}", member="id_token") from None
        except Malformed:
            raise BadAnswer("id_token_claims", member="exp") from None
        if claims.get("aud") not in (self._settings.client_id, [self._settings.client_id]):
            raise BadAnswer("id_token_claims", member="aud")
        if until <= self._clock() - _LEEWAY:
            raise BadAnswer("id_token_claims", member="exp")
        return claims


def _nested(body: dict[str, Any], path: str | None) -> dict[str, Any]:
    """The part of an answer that holds the user's token; the whole where there is none.

    Slack's first answer has it in `authed_user`, its refresh answers at the top. An error is
    always at the top.
    """
    inner = value_at(body, path) if path is not None and not body.get("error") else None
    return inner if isinstance(inner, dict) and "access_token" in inner else body


def _subject(body: dict[str, Any], fields: tuple[str, ...]) -> str:
    """The values of all fields, as one name."""
    return ":".join(_subject_text(body, field) for field in fields)


def _subject_text(body: dict[str, Any], path: str) -> str:
    """A subject that is a text or a whole number; a float would fold two users into one."""
    value = value_at(body, path)
    if type(value) is int:
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable():
        return value
    raise BadAnswer("userinfo_without_subject", member=path)
