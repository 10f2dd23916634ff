"""The pages a person sees: consent, how it went, errors. No script, no third-party address."""

from importlib import resources
from typing import Final, Literal
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from authserver.oauth import redirect_uris
from authserver.sign_in.authorize import ConsentPrompt
from authserver.upstream.contract import Upstream

STYLE_ROUTE: Final = "/oauth/style.css"

# No form-action: Chromium applies it to the whole chain of redirects after the form.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


# How a sign-in ended, for the page that stays when an application takes over.
Outcome = Literal["signed_in", "denied", "stopped"]


class Pages:
    """`style` is the operator's own CSS; it comes after ours and has the last word."""

    def __init__(self, issuer: str, style: bytes) -> None:
        self._environment = Environment(
            loader=PackageLoader("authserver.public"), autoescape=True, undefined=StrictUndefined
        )
        self._environment.globals["base"] = issuer
        ours = resources.files("authserver.public") / "templates" / "style.css"
        self.style = ours.read_bytes() + style

    def consent(self, question: ConsentPrompt, upstreams: list[Upstream]) -> str:
        """The question: which client, which server, which upstream accounts and scopes."""
        return self._environment.get_template("consent.html").render(
            client_name=question.client.name,
            target=redirect_uris.display_target(question.redirect_uri),
            publisher=_publisher(question.client.client_id),
            local=redirect_uris.is_local_application(question.redirect_uri),
            resource=question.resource.url,
            workload=str(question.resource.owner),
            scope=question.scope,
            upstreams=upstreams,
            transaction=question.pending,
            signed_in=question.signed_in,
        )

    def handed_over(self, url: str, outcome: Outcome) -> str:
        """How a sign-in ended, and the way back to an application with a scheme of its own."""
        return self._environment.get_template("handed_over.html").render(
            url=url, outcome=outcome, application=redirect_uris.display_target(url)
        )

    def error(self, message: str, request_id: str) -> str:
        return self._environment.get_template("error.html").render(
            message=message, request_id=request_id
        )


def _publisher(client_id: str) -> str | None:
    """The host whose document describes the client; the one thing about it that is proven."""
    return urlsplit(client_id).netloc if "://" in client_id else None
