"""What every step of a sign-in needs; these always travel together."""

from authserver.audit import Audit, Outcome, Subject
from authserver.handles import NewHandle
from authserver.metrics import Metrics
from authserver.oauth.errors import AccessDenied, ProtocolError
from authserver.oauth.resources import ResourceMap
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.storage.records import PendingSignIn
from authserver.upstream.contract import Upstreams
from authserver.values import Value
from chassis.clock import Clock


def subject_of(pending: PendingSignIn, upstream: str = "") -> Subject:
    """Whom an event about a sign-in under way is about; the user may not be known yet."""
    request = pending.request
    return Subject(pending.user_id, request.client_id, "", request.resource, upstream)


def outcome_of(refusal: ProtocolError) -> Outcome:
    """REFUSED where somebody said no; FAILED where something went wrong."""
    return Outcome.REFUSED if isinstance(refusal, AccessDenied) else Outcome.FAILED


class SignInServices(Value, frozen=True):
    issuer: str
    resources: ResourceMap
    upstreams: Upstreams
    pending_sign_ins: PendingSignIns
    audit: Audit
    metrics: Metrics
    clock: Clock
    new_handle: NewHandle

    def record_login(
        self, pending: PendingSignIn, upstream: str, outcome: Outcome, reason: str = ""
    ) -> None:
        """Count and record how one upstream answered the login of a sign-in."""
        self.metrics.upstream_logins.labels(upstream, outcome.value).inc()
        self.audit.upstream_login(subject_of(pending, upstream), outcome, reason)
