"""What a failure at an upstream means for a sign-in: to the client, and to the log.

`access_denied` means that a person said no, and nothing else. An outage is
`temporarily_unavailable`; a wrong set-up or a wrong answer is `server_error` (RFC 6749 4.1.2.1).
"""

from collections.abc import Mapping
from typing import Final

from authserver.oauth.errors import (
    AccessDenied,
    ProtocolError,
    ServerError,
    TemporarilyUnavailable,
)
from authserver.upstream.contract import (
    BadAnswer,
    GrantRevoked,
    OutcomeUnknown,
    Unavailable,
    UpstreamFailure,
)
from chassis.logs import Log

_log = Log("sign_in")

# How upstreams say that the person chose not to go on; LinkedIn has words of its own.
_DECLINED: Final = frozenset({"access_denied", "user_cancelled_authorize", "user_cancelled_login"})
# RFC 6749 section 4.1.2.1 and OpenID Connect Core section 3.1.2.6; others are logged as `other`.
_KNOWN_ERRORS: Final = frozenset(
    {
        "account_selection_required", "consent_required", "interaction_required",
        "invalid_client", "invalid_request", "invalid_scope", "login_required", "server_error",
        "temporarily_unavailable", "unauthorized_client", "unsupported_response_type",
    }
)  # fmt: skip
# Refusals that come back until somebody changes a configuration, ours or the upstream's.
_SET_UP: Final = frozenset({"upstream_refused", "upstream_not_configured"})
# A success that cannot be read is not an outage.
_UNUSABLE: Final = frozenset({"unreadable_answer", "unusable_answer"})

_OUTAGE_TEXT: Final = "the upstream that signs users in cannot be used just now"
_SET_UP_TEXT: Final = "the upstream refused our request or gave an answer that cannot be used"


def check_callback(fields: Mapping[str, str]) -> str:
    """The code in an upstream's callback.

    Raises AccessDenied where the person declined there, and UpstreamFailure for other errors.
    """
    error = fields.get("error")
    if error in _DECLINED:
        raise AccessDenied("upstream_declined", "the user declined at the upstream")
    if error == "temporarily_unavailable":
        raise Unavailable("callback_temporarily_unavailable")
    if error is not None:
        raise BadAnswer(f"callback_{error if error in _KNOWN_ERRORS else 'other_error'}")
    if "code" not in fields:
        raise BadAnswer("callback_without_code")
    return fields["code"]


def refusal_of(failure: UpstreamFailure | AccessDenied) -> ProtocolError:
    """What the client gets for a failed sign-in at an upstream."""
    if isinstance(failure, AccessDenied):
        return failure
    reason = f"upstream_{str(failure).removeprefix('upstream_')}"
    if _is_outage(failure):
        return TemporarilyUnavailable(reason, _OUTAGE_TEXT)
    return ServerError(reason, _SET_UP_TEXT)


def log_failure(upstream: str, failure: UpstreamFailure | AccessDenied, *, linked: bool) -> None:
    """Say which upstream failed and why; never a value that it sent.

    `linked`: the sign-in goes on, because this upstream does not name the user.
    """
    if isinstance(failure, AccessDenied):
        _log.info("upstream_declined", upstream=upstream, linked=linked)
        return
    kind = {GrantRevoked: "refused", Unavailable: "unavailable", BadAnswer: "bad_answer"}
    _log.warning(
        "upstream_sign_in_failed",
        upstream=upstream,
        reason=failure.reason,
        member=failure.member,
        detail=failure.detail,
        kind=kind.get(type(failure), "outcome_unknown"),
        outage=_is_outage(failure),
        linked=linked,
    )


def _is_outage(failure: UpstreamFailure) -> bool:
    if isinstance(failure, Unavailable):
        return not (failure.lasting or failure.reason in _SET_UP)
    return isinstance(failure, OutcomeUnknown) and str(failure) not in _UNUSABLE
