"""The pages a person sees: consent and errors. No script, no third-party address, any screen."""

from importlib import resources
from typing import Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from authserver import redirects
from authserver.authorize import Question
from authserver.upstream.contract import Upstream

STYLE_ROUTE: Final = "/oauth/style.css"

# No form-action: Chromium applies it to the whole chain of redirects after the form.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Pages:
    def __init__(self, issuer: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("authserver"), autoescape=True, undefined=StrictUndefined
        )
        self._environment.globals["base"] = issuer
        self.style = (resources.files("authserver") / "templates" / "style.css").read_bytes()

    def consent(self, question: Question, upstreams: list[Upstream]) -> str:
        """The question: which client, which server, which upstream accounts and scopes."""
        return self._environment.get_template("consent.html").render(
            client_name=question.client.name,
            target=redirects.shown_target(question.redirect_uri),
            publisher=_publisher(question.client.client_id),
            local=redirects.is_local_application(question.redirect_uri),
            resource=question.resource.url,
            workload=str(question.resource.owner),
            scope=question.scope,
            upstreams=upstreams,
            transaction=question.transaction,
            signed_in=question.signed_in,
        )

    def error(self, message: str, request_id: str) -> str:
        return self._environment.get_template("error.html").render(
            message=message, request_id=request_id
        )


def _publisher(client_id: str) -> str | None:
    """The host whose document describes the client; the one thing about it that is proven."""
    return urlsplit(client_id).netloc if "://" in client_id else None
