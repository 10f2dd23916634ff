"""Parameters of a query or a form: what authenticates or holds the JWT is left out of them.

Everything else goes on byte for byte, in its order.
"""

from typing import Final
from urllib.parse import unquote

from sidecar.apis import Api
from sidecar.errors import DESTINATION_NOT_ALLOWED, ApiError

# RFC 6750 sections 2.2 and 2.3, and what GitLab takes as a token.
_CREDENTIALS: Final = frozenset({"access_token", "job_token", "private_token"})
_OVERRIDES: Final = frozenset(
    {
        "$httpmethod", "_httpmethod", "_method", "http_method", "httpmethod", "method_override",
        "x-http-method", "x-http-method-override", "x-method-override", "x_http_method",
        "x_http_method_override", "x_method_override",
    }
)  # fmt: skip
_MOST_DECODINGS: Final = 4


def forwarded_parameters(text: str, api: Api, unverified_jwt: str) -> str | ApiError:
    """The parameters that go on, spelt as they were sent.

    Refused are those that override the method, and a forbidden name behind a semicolon, which
    some servers take for a separator.
    """
    forbidden = _CREDENTIALS | {name.lower() for name in api.credential_parameters}
    kept = []
    for pair in text.split("&"):
        first, *others = [_name(part) for part in pair.split(";")]
        if first in _OVERRIDES or not _OVERRIDES.isdisjoint(others):
            return DESTINATION_NOT_ALLOWED.with_reason(
                "method_override", "A parameter overrides the method, which is not sent on."
            )
        if not forbidden.isdisjoint(others):
            return DESTINATION_NOT_ALLOWED.with_reason(
                "parameter_behind_semicolon",
                "A parameter that authenticates stands behind a semicolon.",
            )
        if first not in forbidden and not holds(pair, unverified_jwt):
            kept.append(pair)
    return "&".join(kept)


def holds(text: str, unverified_jwt: str) -> bool:
    """Whether the JWT is in a text, escaped or not."""
    return unverified_jwt in text or ("%" in text and unverified_jwt in _decoded(text))


def _name(pair: str) -> str:
    """The name as lenient servers have it: decoded, in lower case, without an index."""
    name = pair.partition("=")[0]
    if "%" in name or "+" in name:
        name = _decoded(name.replace("+", " "))
    return name.partition("[")[0].partition("\x00")[0].strip().lower()


def _decoded(text: str) -> str:
    for _ in range(_MOST_DECODINGS):
        again = unquote(text)
        if again == text:
            break
        text = again
    return text
