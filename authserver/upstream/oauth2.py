"""A plain OAuth 2.0 provider: endpoints from the configuration, the user from its userinfo."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from authserver.config.upstreams import OAuth2Upstream
from authserver.storage.records import Grant, UpstreamTokens
from authserver.upstream.account import account_name
from authserver.upstream.client import UpstreamClient, login_url
from authserver.upstream.contract import BadAnswer
from authserver.upstream.http_client import UpstreamHttp
from authserver.upstream.token_response import read_tokens
from chassis.clock import Clock


class OAuth2:
    """An upstream without ID tokens.

    It has no issuer, so its users are known by the origin of its authorization endpoint.
    """

    def __init__(self, settings: OAuth2Upstream, http: UpstreamHttp, clock: Clock) -> None:
        self.name, self.scopes = settings.name, settings.scopes
        self.display_name = settings.display_name or settings.name
        self.scope_descriptions: Mapping[str, str] = settings.scope_descriptions
        self.rotates_refresh_tokens = settings.rotates_refresh_tokens
        self.reuse_grace_seconds = settings.refresh_token_reuse_grace
        self.uses_form_post = settings.response_mode == "form_post"
        self._settings = settings
        self._http, self._clock = http.with_ca(settings.ca_file), clock
        self._client = UpstreamClient(settings.client_id, settings.client_secret(), self._http)
        self._in_body = settings.client_authentication != "basic"
        origin = urlsplit(settings.authorization_endpoint)
        self._issuer = f"{origin.scheme}://{origin.netloc}"

    async def login_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        nonce: str,
        code_challenge: str,
        choose_account: bool,
    ) -> str:
        return login_url(
            self._settings.authorization_endpoint,
            client_id=self._settings.client_id,
            redirect_uri=redirect_uri,
            scope=self._settings.scope_separator.join(self.scopes),
            scope_parameter=self._settings.scope_parameter,
            state=state,
            code_challenge=code_challenge,
            more=self._settings.authorize_parameters,
            form_post=self.uses_form_post,
            choose_account=choose_account,
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
        body, tokens = await self._tokens(fields)
        subject, account = await self._user(tokens.access_token, body)
        return Grant(self.name, self._issuer, subject, tokens, " ".join(self.scopes), account)

    async def refresh(self, refresh_token: str, *, subject: str) -> UpstreamTokens:
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        _, tokens = await self._tokens(fields, presented=refresh_token)
        return tokens

    async def revoke(self, tokens: UpstreamTokens) -> None:
        endpoint = self._settings.revocation_endpoint
        if endpoint is not None:
            await self._client.revoke(endpoint, tokens, in_body=self._in_body)

    async def _tokens(
        self, fields: dict[str, str], presented: str | None = None
    ) -> tuple[dict[str, Any], UpstreamTokens]:
        """The whole answer, and what it gives."""
        status, body = await self._client.post(
            self._settings.token_endpoint, fields, in_body=self._in_body
        )
        tokens = read_tokens(
            status,
            _nested(body, self._settings.token_path),
            now=int(self._clock()),
            presented=presented,
            types=self._settings.token_types,
            scope_separator=self._settings.answered_scope_separator,
        )
        return body, tokens

    async def _user(self, access_token: str, answer: dict[str, Any]) -> tuple[str, str]:
        """Subject and account name of whom the token is of.

        The subject is empty for an upstream that is only linked, never an identity.
        """
        fields, endpoint = self._settings.subject_fields, self._settings.userinfo_endpoint
        if not fields:
            return "", ""
        if self._settings.subject_from == "token":
            return ":".join(_subject_text(_at(answer, field)) for field in fields), ""
        if endpoint is None:
            return "", ""
        status, body = await self._http.get(endpoint, bearer=access_token)
        if status != 200:
            raise BadAnswer("userinfo_refused")
        subject = ":".join(_subject_text(_at(body, field)) for field in fields)
        return subject, account_name(body)


def _nested(body: dict[str, Any], path: str | None) -> dict[str, Any]:
    """The part of an answer that holds the user's token; the whole where there is none.

    Slack's first answer has it in `authed_user`, its refresh answers at the top. An error is
    always at the top.
    """
    inner = _at(body, path) if path is not None and "error" not in body else None
    return inner if isinstance(inner, dict) and "access_token" in inner else body


def _at(body: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _subject_text(value: Any) -> str:
    """A subject that is a text or a whole number; a float would fold two users into one."""
    if type(value) is int:
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable():
        return value
    raise BadAnswer("userinfo_without_subject")
