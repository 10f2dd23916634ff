"""An upstream whose tokens are made of another upstream's by an exchange (RFC 8693)."""

from collections.abc import Mapping, Sequence
from typing import Final

from authserver.config.exchanged_upstreams import ExchangedUpstream
from authserver.config.upstreams import OAuth2Upstream, OidcUpstream
from authserver.oauth.exchange_target import ExchangeTarget
from authserver.storage.records import ClientRegistration, Grant, UpstreamTokens
from authserver.upstream.account_origins import AccountHosts
from authserver.upstream.client import UpstreamClient, naming
from authserver.upstream.contract import (
    BadAnswer,
    CallbackResponse,
    ExchangeRequest,
    FormerUpstream,
    LoginRequest,
    MaySend,
    RefreshRequest,
    Unavailable,
)
from authserver.upstream.discovery import Discovery
from authserver.upstream.exchange_response import read_exchanged
from authserver.upstream.http_client import Answer, UpstreamHttp
from authserver.upstream.revocation_response import Revocation
from authserver.upstream.token_response import TokenRules, read_tokens
from authserver.values import Value
from chassis.clock import Clock

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"


class _Endpoints(Value, frozen=True):
    for_tokens: str
    revocation: str | None
    in_body: bool


class Exchanged:
    """Makes tokens at the provider of `parent`, or at a server that the operator names.

    An exchange leaves the token that it is made of as it was. So nothing here is spent by being
    presented, and an exchange of unknown outcome is simply made again.
    """

    step_up_scopes: tuple[str, ...] = ()
    former: tuple[FormerUpstream, ...] = ()
    rotates_refresh_tokens = False
    reuse_grace_seconds = 0
    repeats_uncertain_refresh = True
    revocation_ends_grant = False
    exchange_only = False
    uses_form_post = False

    def __init__(
        self,
        settings: ExchangedUpstream,
        parent: OidcUpstream | OAuth2Upstream,
        http: UpstreamHttp,
        clock: Clock,
    ) -> None:
        self.name, self.scopes = settings.name, settings.scopes
        self.made_of, self.target = parent.name, settings.target
        self.display_name = settings.display_name or settings.name
        self.scope_descriptions: Mapping[str, str] = settings.scope_descriptions
        self._settings, self._parent, self._clock = settings, parent, clock
        issuer = parent.issuer if isinstance(parent, OidcUpstream) else None
        client_id = settings.client_id or parent.client_id
        server = settings.exchange.token_endpoint or issuer or _token_endpoint_of(parent)
        self.user_issuer = server
        self.registration = ClientRegistration(server, client_id)
        secret = (parent if settings.client_id is None else settings).client_secret()
        client = http.client(settings.ca_file or parent.ca_file, settings.proxy or parent.proxy)
        self._client = UpstreamClient(client_id, secret, client)
        self._discovery = Discovery(issuer, client, clock) if issuer is not None else None
        self._rules = TokenRules(
            dead_grant=settings.dead_grant_errors,
            account_hosts=AccountHosts(settings.name, settings.account_hosts),
        )

    def variant(self, target: ExchangeTarget) -> str:
        registration = self.registration
        return target.digest(registration.authorization_server, registration.client_id)

    def is_within(self, tokens: UpstreamTokens, target: ExchangeTarget) -> bool:
        added = self._settings.exchange.added_scopes
        return not target.beyond((tokens.scope or "").split(), added)

    async def exchange(self, request: ExchangeRequest) -> UpstreamTokens:
        target, settings = request.target, self._settings.exchange
        fields: dict[str, str | Sequence[str]] = {
            **self._settings.token_parameters,
            "grant_type": GRANT_TYPE,
            "subject_token": request.subject_token,
            "subject_token_type": settings.subject_token_type,
            "requested_token_type": target.token_type,
        }
        named = {
            "audience": target.audiences,
            "resource": target.resources,
            "scope": " ".join(target.scopes),
        }
        fields |= {name: value for name, value in named.items() if value}
        with naming(self.name):
            answer = await self._post(fields, request.may_send)
            now = int(self._clock())
            return read_exchanged(answer, self._rules, target, added=settings.added_scopes, now=now)

    async def refresh(self, request: RefreshRequest) -> UpstreamTokens:
        assert request.tokens.refresh_token is not None
        fields = self._settings.refresh_parameters | {
            "grant_type": "refresh_token",
            "refresh_token": request.tokens.refresh_token,
        }
        with naming(self.name):
            answer = await self._post(fields, request.may_send)
            now = int(self._clock())
            return read_tokens(answer, self._rules, now=now, previous=request.tokens)

    async def revoke(self, tokens: UpstreamTokens) -> bool:
        with naming(self.name):
            endpoints = await self._endpoints()
            if endpoints.revocation is not None:
                await self._client.revoke(
                    Revocation(endpoints.revocation, endpoints.in_body), tokens
                )
            return endpoints.revocation is not None

    async def accepts(self, access_token: str) -> bool | None:
        """None: the token says nothing of who may ask about it, so nobody is asked."""
        return None

    async def login_url(self, request: LoginRequest) -> str:
        """Raises Unavailable: nobody signs in here."""
        raise Unavailable("made_by_exchange", lasting=True)

    async def redeem(self, response: CallbackResponse) -> Grant:
        """Raises BadAnswer: no callback is expected."""
        raise BadAnswer("made_by_exchange")

    async def _post(self, fields: Mapping[str, str | Sequence[str]], may_send: MaySend) -> Answer:
        endpoints = await self._endpoints()
        return await self._client.post(
            endpoints.for_tokens, fields, in_body=endpoints.in_body, may_send=may_send
        )

    async def _endpoints(self) -> _Endpoints:
        """Where tokens are made and revoked; the operator's word wins over the provider's."""
        own, configured = self._settings.exchange, self._settings.client_authentication
        if own.token_endpoint is not None:
            in_body = configured != "basic"
            return _Endpoints(own.token_endpoint, own.revocation_endpoint, in_body)
        configured = configured or self._parent.client_authentication
        if self._discovery is not None:
            provider = await self._discovery.provider()
            token, revocation = provider.token_endpoint, provider.revocation_endpoint
            in_body = provider.posts_secret if configured is None else configured == "body"
        else:
            assert isinstance(self._parent, OAuth2Upstream)
            token, revocation = self._parent.token_endpoint, self._parent.revocation_endpoint
            in_body = configured != "basic"
        return _Endpoints(token, own.revocation_endpoint or revocation, in_body)


def _token_endpoint_of(parent: OidcUpstream | OAuth2Upstream) -> str:
    assert isinstance(parent, OAuth2Upstream)
    return parent.token_endpoint
