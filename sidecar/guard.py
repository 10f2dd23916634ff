"""Whether a call comes from a program of this pod that means us, judged before any look-up.

A server-side request forgery, a proxied request and a page in a browser each leave marks that
no honest local caller has: forwarding and browser headers, a foreign Host, an absolute target.
"""

from typing import Final

from multidict import CIMultiDictProxy

from sidecar.refusals import FORBIDDEN_CALLER, INVALID_REQUEST, Refusal

_FORBIDDEN_NAMES: Final = frozenset({"forwarded", "via", "origin", "referer"})
_FORBIDDEN_PREFIXES: Final = ("x-forwarded", "sec-fetch-")

Headers = CIMultiDictProxy[str]


def refuse_caller(headers: Headers, target: str, port: int) -> Refusal | None:
    """Why this caller is refused on any route; `target` is the request line's own spelling."""
    if not target.startswith("/"):
        return FORBIDDEN_CALLER.because("target")
    if headers.getall("Host", ()) not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]):
        return FORBIDDEN_CALLER.because("host")
    for name in headers:
        lowered = name.lower()
        if lowered in _FORBIDDEN_NAMES or lowered.startswith(_FORBIDDEN_PREFIXES):
            return FORBIDDEN_CALLER.because("forwarded_or_browser")
    return None


def refuse_token_call(headers: Headers, method: str) -> Refusal | None:
    """Why this call is not one for a token: each mark is more than a forged request can set."""
    if method != "POST":
        return FORBIDDEN_CALLER.because("method")
    if headers.getall("X-Tokenward", ()) != ["1"]:
        return FORBIDDEN_CALLER.because("x_tokenward")
    content_type = headers.getall("Content-Type", ())
    if len(content_type) != 1 or _media_type(content_type[0]) != "application/json":
        return FORBIDDEN_CALLER.because("content_type")
    if len(headers.getall("Authorization", ())) > 1:
        return INVALID_REQUEST.because("two_authorizations")
    return None


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
