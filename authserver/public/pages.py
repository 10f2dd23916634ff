"""The pages a person sees: consent, how it went, errors, the front page.

No script, no third-party address.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from authserver.account.connect_steps import (
    Confirmation,
    Connected,
    ConnectPrompt,
    SignInFirst,
)
from authserver.account.connect_subject import Application, ConnectSubject
from authserver.account.connections import MyConnections, ServerUse, UpstreamUse
from authserver.account.sign_in import SignInChoices
from authserver.config.settings import PageSettings
from authserver.oauth import redirect_uris
from authserver.oauth.errors import (
    AccessDenied,
    ErrorRedirect,
    ServerError,
    TemporarilyUnavailable,
)
from authserver.oauth.scopes import of_upstream
from authserver.sign_in.authorize import ConsentPrompt
from authserver.storage.records import NO_ACCOUNT, Account
from authserver.upstream.contract import Upstream, Upstreams
from authserver.values import Value

if TYPE_CHECKING:
    from jinja2 import Environment

STYLE_ROUTE: Final = "/oauth/style.css"
LOGO_ROUTE: Final = "/oauth/logo"
FAVICON_ROUTE: Final = "/favicon.ico"

# No form-action: Chromium applies it to the whole chain of redirects after the form.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def _templates() -> "Environment":
    """Shared by every configuration that a process has in turn: each template is compiled once.

    Jinja is a twentieth of the process's start, and only the first page needs it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("authserver.public"), autoescape=True, undefined=StrictUndefined
    )


class Outcome(StrEnum):
    """How a sign-in ended, for the page that stays when an application takes over."""

    SIGNED_IN = "signed_in"
    DENIED = "denied"
    DECLINED_UPSTREAM = "declined_upstream"
    UNAVAILABLE = "unavailable"
    SET_UP = "set_up"
    STOPPED = "stopped"


class Ending(Value, frozen=True):
    """How a sign-in ended, and at which upstream; `failed` were left out of a good one.

    `moves_on`: the browser goes to the application by itself.
    """

    outcome: Outcome
    upstream: str = ""
    account: Account = NO_ACCOUNT
    failed: tuple[str, ...] = ()
    moves_on: bool = True


def ending_of(error: ErrorRedirect) -> Ending:
    """What an authorization error means to the person at the browser."""
    match error.refusal:
        case AccessDenied() if error.upstream:
            outcome = Outcome.DECLINED_UPSTREAM
        case AccessDenied():
            outcome = Outcome.DENIED
        case TemporarilyUnavailable() if error.upstream:
            outcome = Outcome.UNAVAILABLE
        case ServerError() if error.upstream:
            outcome = Outcome.SET_UP
        case _:
            outcome = Outcome.STOPPED
    return Ending(outcome, error.upstream, moves_on=error.consented)


class _Permission(Value, frozen=True):
    words: str
    scope: str
    asked_now: bool = False


class Pages:
    """`settings` is the operator's look; the CSS file comes after ours and has the last word."""

    def __init__(self, issuer: str, settings: PageSettings, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._look = {
            "base": issuer,
            "site_title": settings.title,
            "support_url": settings.support_url,
            "logo": settings.logo_file is not None,
        }
        templates = resources.files("authserver.public") / "templates"
        self.style = (templates / "style.css").read_bytes() + settings.style()
        self.favicon = (templates / "favicon.svg").read_bytes()
        self.logo = settings.logo()

    def consent(self, question: ConsentPrompt) -> str:
        """The question: which client, which server, which upstream accounts and scopes."""
        resource, more = question.resource, question.upstream_scopes
        at_once = {*resource.at_sign_in, *(name for name, _ in more)}
        upstreams = [self._upstreams[name] for name in resource.upstreams if name in at_once]
        exchanged = [
            self._upstreams[one] for one in resource.upstreams if one in resource.exchanged
        ]
        later = [
            self._upstreams[name]
            for name in resource.upstreams
            if name not in at_once and name not in resource.exchanged
        ]
        return self._render(
            "consent.html",
            client_name=question.client.name,
            target=redirect_uris.display_target(question.redirect_uri),
            publisher=_publisher(question.client.client_id),
            local=redirect_uris.is_local_application(question.redirect_uri),
            resource=question.resource.url,
            workload=str(question.resource.owner),
            scope=question.scope,
            upstreams=[
                (upstream, _permissions(upstream, of_upstream(upstream.name, more)))
                for upstream in upstreams
            ],
            later=[(upstream, _permissions(upstream)) for upstream in later],
            exchanged=self._exchanged(exchanged),
            transaction=question.pending,
            signed_in=question.signed_in,
            account=question.account.name,
            provider=self._display_name(question.account.upstream or upstreams[0].name),
        )

    def connect_sign_in(self, first: SignInFirst) -> str:
        """The page of a link for everybody but its user: nothing of it is said."""
        account = first.signed_in_as
        return self._render(
            "connect_sign_in.html",
            link=first.link,
            token=first.token,
            other_user=account is not None,
            account=account.name if account is not None else "",
        )

    def connect_prompt(self, prompt: ConnectPrompt) -> str:
        """The page of a link for its user, before the upstream is asked."""
        return self._render(
            "connect.html",
            **self._facts(prompt.subject, prompt.applications),
            action=f"connect/{prompt.subject.text}",
            token=prompt.token,
            account=prompt.account.name,
            account_provider=self._display_name(prompt.account.upstream),
        )

    def connect_confirm(self, confirmation: Confirmation) -> str:
        """The page that names the account that is about to be attached."""
        return self._render(
            "connect_confirm.html",
            **self._facts(confirmation.subject, confirmation.applications),
            transaction=confirmation.pending,
            account=confirmation.account.name,
        )

    def connected(self, ending: Connected) -> str:
        """How connecting an account ended."""
        return self._render(
            "connected.html",
            attached=ending.attached,
            provider=ending.subject.upstream.display_name,
            account=ending.account.name,
        )

    def connections_sign_in(self, choices: SignInChoices) -> str:
        """The page of connections for somebody who is not signed in."""
        return self._render(
            "connections_sign_in.html", upstreams=choices.upstreams, token=choices.token
        )

    def connections(self, mine: MyConnections) -> str:
        """What the signed-in person has connected, and how they end it."""
        return self._render(
            "connections.html",
            account=mine.account.name,
            provider=self._display_name(mine.account.upstream),
            servers=[(server, _uses(server)) for server in mine.servers],
            token=mine.token,
            day=_day,
        )

    def handed_over(self, url: str, ending: Ending, request_id: str) -> str:
        """How a sign-in ended, and the way back to an application with a scheme of its own."""
        return self._render(
            "handed_over.html",
            url=url,
            outcome=ending.outcome.value,
            moves_on=ending.moves_on,
            application=redirect_uris.display_target(url),
            upstream=self._display_name(ending.upstream),
            account=ending.account.name,
            provider=self._display_name(ending.account.upstream),
            failed=[self._display_name(name) for name in ending.failed],
            request_id=request_id,
        )

    def home(self, *, signed_in: bool, account: Account, token: str) -> str:
        """The front page: who is signed in at this browser, and how to end that."""
        return self._render(
            "home.html",
            signed_in=signed_in,
            account=account.name,
            provider=self._display_name(account.upstream),
            token=token,
        )

    def error(self, message: str, request_id: str) -> str:
        return self._render("error.html", message=message, request_id=request_id)

    def _render(self, template: str, **values: Any) -> str:
        return _templates().get_template(template).render(self._look, **values)

    def _facts(
        self, subject: ConnectSubject, applications: Sequence[Application]
    ) -> dict[str, Any]:
        """What both pages of a link say: which server, which provider, what for, and for whom."""
        return {
            "resource": subject.resource.url,
            "provider": subject.upstream.display_name,
            "permissions": _permissions(subject.upstream),
            "exchanged": self._exchanged(subject.exchanged),
            "applications": applications,
        }

    def _exchanged(
        self, upstreams: Sequence[Upstream]
    ) -> list[tuple[Upstream, str, Sequence[_Permission]]]:
        """Upstreams whose tokens are exchanged, each with the name of whose, and what it permits.

        Where no scope is asked for, the provider decides what the token permits.
        """
        return [(one, self._display_name(one.made_of), _permissions(one)) for one in upstreams]

    def _display_name(self, upstream: str) -> str:
        configured = self._upstreams.get(upstream)
        return configured.display_name if configured is not None else upstream


def _uses(server: ServerUse) -> list[tuple[UpstreamUse, Sequence[_Permission]]]:
    return [(use, _permissions(use.upstream)) for use in server.upstreams]


def _day(seconds: int) -> str:
    """A date in UTC that every browser and reader takes for the same: `2026-11-29`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _permissions(upstream: Upstream, more: Sequence[str] = ()) -> Sequence[_Permission]:
    """What is asked for at an upstream: in words where there are some, else as it is.

    `more` is what the client asks for by name. It is marked, so that a person who has signed in
    before sees what is different.
    """
    words = upstream.scope_descriptions
    scopes = dict.fromkeys((*upstream.scopes, *more))
    return [_Permission(words.get(scope, ""), scope, scope in more) for scope in scopes]


def _publisher(client_id: str) -> str | None:
    """The host whose document describes the client; the one thing about it that is proven."""
    return urlsplit(client_id).netloc if "://" in client_id else None
