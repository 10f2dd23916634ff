"""What a refresh made at the fake upstream and who learned of it."""

from collections.abc import Callable
from dataclasses import dataclass

from demo.upstream import FakeUpstream
from demo.upstream.grants import Grant


@dataclass
class Acted:
    """The last refresh that the upstream made for a grant; `at` is monotonic time.

    `answer_lost`: the upstream itself did not send the answer. `caller_gone`: the caller had
    given up, or was killed, when it was sent.
    """

    access_token: str
    at: float
    answer_lost: bool = False
    caller_gone: bool = False


def newest_token(upstream: FakeUpstream, grant: Grant) -> str:
    """The access token that was issued last for a grant."""
    issued = upstream.grants._access_tokens  # a dict keeps the order
    return next(token for token in reversed(issued) if issued[token].grant is grant)


def presented_in_vain(
    upstream: FakeUpstream, refresh_token: str, served: Callable[[str], bool]
) -> bool:
    """Whether a spent refresh token comes although its successor's access token was served."""
    grant = upstream.grants._refresh_tokens.get(refresh_token)
    if grant is None or grant.dead or grant.refresh_token == refresh_token:
        return False
    return served(newest_token(upstream, grant))
