"""AdmissionReview (admission.k8s.io/v1): read as far as it is decided on, and answered."""

from typing import Any, Final

import msgspec

from chassis.spiffe_id import is_dns_label
from webhook import pod_view
from webhook.evaluate import AdmissionResult
from webhook.reasons import Reason


class InvalidReview(ValueError):
    """The body is no review that can be answered; the text repeats nothing of it."""


class _GroupVersionKind(msgspec.Struct):
    group: str = ""
    version: str = ""
    kind: str = ""


class _User(msgspec.Struct):
    username: str = ""


class Request(msgspec.Struct):
    uid: str
    kind: _GroupVersionKind
    operation: str
    namespace: str = ""
    name: str = ""
    sub_resource: str = msgspec.field(default="", name="subResource")
    dry_run: bool | None = msgspec.field(default=None, name="dryRun")
    user: _User = msgspec.field(default_factory=_User, name="userInfo")
    object: Any = None


class _PodRequest(Request):
    object: pod_view.PodView | None = None


class _Review(msgspec.Struct):
    apiVersion: str
    kind: str
    request: Request


class _PodReview(_Review):
    request: _PodRequest


class _Audit(msgspec.Struct, omit_defaults=True):
    decision: str
    reason: Reason
    config_hash: str = msgspec.field(default="", name="config-hash")


class _Status(msgspec.Struct):
    message: str
    code: int = 403
    reason: str = "Forbidden"


class _Response(msgspec.Struct, omit_defaults=True):
    uid: str
    allowed: bool
    auditAnnotations: _Audit
    warnings: tuple[str, ...] = ()
    patchType: str | None = None
    patch: bytes | None = None  # written in base64, as the API server wants it
    status: _Status | None = None


class _Answer(msgspec.Struct):
    response: _Response
    apiVersion: str = "admission.k8s.io/v1"
    kind: str = "AdmissionReview"


_POD: Final = _GroupVersionKind("", "v1", "Pod")

_decoder: Final = msgspec.json.Decoder(_PodReview)
_tolerant: Final = msgspec.json.Decoder(_Review)
_encoder: Final = msgspec.json.Encoder()


def parse(body: bytes) -> Request:
    """The request of a review. Raises InvalidReview."""
    try:
        review = _decoded(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise InvalidReview("not an AdmissionReview") from None
    if (review.apiVersion, review.kind) != ("admission.k8s.io/v1", "AdmissionReview"):
        raise InvalidReview("only admission.k8s.io/v1 AdmissionReview is answered")
    if not review.request.uid:
        raise InvalidReview("the request has no uid")
    if not is_dns_label(review.request.namespace):
        raise InvalidReview("the request names no namespace")
    return review.request


def _decoded(body: bytes) -> _Review:
    """A review; one whose object is no pod at all is still a review, and has an answer."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        return _tolerant.decode(body)


def creates_a_pod(request: Request) -> bool:
    return request.kind == _POD and request.operation == "CREATE" and not request.sub_resource


def pod(request: Request, body: bytes) -> pod_view.Pod:
    """The pod of a review, read with the review itself where it could be. Raises Malformed."""
    view = request.object
    if not isinstance(view, pod_view.PodView):
        return pod_view.read(view)
    return pod_view.Pod(view.metadata, view.spec, _AsSent(body))


class _AsSent:
    """The object of a review with all its fields; read when it is asked for, which few pods need.

    Once only: a pod may have any number of volumes that look like ours, each compared with it.
    """

    __slots__ = ("_body", "_object")

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    def __call__(self) -> Any:
        if self._body is not None:
            self._object = _tolerant.decode(self._body).request.object
            self._body = None
        return self._object


def answer(uid: str, verdict: AdmissionResult) -> bytes:
    """The AdmissionReview to be sent back."""
    response = _Response(
        uid,
        verdict.allowed,
        _Audit(verdict.decision, verdict.reason, verdict.config_hash),
        verdict.warnings,
    )
    if verdict.patch:
        response.patch, response.patchType = verdict.patch, "JSONPatch"
    if not verdict.allowed:
        response.status = _Status(verdict.message)
    return _encoder.encode(_Answer(response))
