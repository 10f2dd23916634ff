"""What the contract lets a program of the pod be told while the authserver cannot be asked."""

from tests.sidecar.harness import Reply


def is_an_outage(reply: Reply) -> bool:
    """The contract's 503: no verdict on the JWT, and a word on when to come back."""
    return (
        reply.status == 503
        and reply.json["error"] == "temporarily_unavailable"
        and reply.json["action"] == "retry"
        and int(reply.headers["Retry-After"]) >= 1
        and "WWW-Authenticate" not in reply.headers
    )
