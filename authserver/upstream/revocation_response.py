"""How an upstream wants a revocation, and what it answers (RFC 7009), with the quirks of some."""

from typing import Final, Literal

from authserver.storage.records import UpstreamTokens
from authserver.upstream.contract import Unavailable
from authserver.upstream.http_client import Answer
from authserver.upstream.token_response import BUSY, OF_OUR_CLIENT, PASSING
from authserver.values import Value

# What servers say of a token that is over, against RFC 7009 section 2.2: that is no error.
_OVER: Final = frozenset({"invalid_token", "invalid_grant"})


class Revocation(Value, frozen=True):
    """How an upstream wants a revocation; the defaults are those of RFC 7009.

    `sends` is which token: `both` are named one after the other where each ends itself alone,
    `bearer` is the access token as the request's own credential. A DELETE is written as JSON, under
    our client's Basic credentials.
    """

    url: str
    in_body: bool
    sends: Literal["refreshToken", "accessToken", "both", "bearer"] = "refreshToken"
    parameter: str = "token"
    method: Literal["POST", "DELETE"] = "POST"

    def tokens_of(self, tokens: UpstreamTokens) -> tuple[str, ...]:
        """The tokens to name; the access token where there is no other."""
        refresh, access = tokens.refresh_token, tokens.access_token
        if refresh is None or self.sends in ("accessToken", "bearer"):
            return (access,)
        return (refresh, access) if self.sends == "both" else (refresh,)

    def ends_grant_of(self, tokens: UpstreamTokens) -> bool:
        """Whether nothing is left of the tokens once those that are sent are over."""
        return tokens.refresh_token in (None, *self.tokens_of(tokens))


def check_revoked(answer: Answer, revocation: Revocation, tokens: UpstreamTokens) -> None:
    """Raises Unavailable where the upstream does not say that the tokens are over.

    `refused` is set where asking again is of no use.
    """
    status, error = answer.status, answer.body.get("error")
    # Slack answers 200 to everything, and says in `ok` whether it did it.
    denied = answer.body.get("ok") is False
    if 200 <= status < 300 and not denied:
        return
    word = error.lower() if isinstance(error, str) else None
    if status in (400, 401) and word in _OVER and revocation.ends_grant_of(tokens):
        return
    if status in BUSY or word in PASSING:
        # RFC 7009 section 2.2.1: a 503 means that the token is still there.
        raise Unavailable("upstream_busy", retry_after=answer.retry_after)
    if word in OF_OUR_CLIENT or (status == 401 and revocation.sends != "bearer"):
        raise Unavailable("client_refused", lasting=True)
    # A page of HTML is a proxy's, or comes from where no such endpoint is.
    definite = denied or status == 400 or (400 < status < 500 and bool(answer.body))
    if not definite:
        raise Unavailable("upstream_failed", retry_after=answer.retry_after)
    reason = word if word == "unsupported_token_type" else "revocation_refused"
    raise Unavailable(reason, refused=True)
