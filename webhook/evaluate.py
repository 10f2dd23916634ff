"""A pod in, a verdict out: the one path that the webhook, the offline command and the readiness
self-test share. Pure.
"""

from typing import Any, Literal

import msgspec

from webhook.decision import Deny, Inject, Skip, decide
from webhook.patch import patch
from webhook.pod_view import Pod
from webhook.reasons import Reason, denial
from webhook.settings import Settings

Word = Literal["injected", "skipped", "denied"]


class AdmissionResult(msgspec.Struct, frozen=True):
    """What the API server, the audit log, the metrics or a terminal is told about one pod.

    `patch` is the JSON Patch as it is sent; empty where nothing is added.
    """

    decision: Word
    reason: Reason
    patch: bytes = b""
    warnings: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    message: str = ""
    config_hash: str = ""

    @property
    def allowed(self) -> bool:
        return self.decision != "denied"

    @property
    def operations(self) -> tuple[dict[str, Any], ...]:
        """What the patch says, for those who apply or show it themselves."""
        return msgspec.json.decode(self.patch or b"[]", type=tuple[dict[str, Any], ...])


def evaluate(
    pod: Pod, namespace: str, settings: Settings, *, namespace_opted_in: bool
) -> AdmissionResult:
    match decide(pod, namespace, settings, namespace_opted_in=namespace_opted_in):
        case Inject(sidecar, options, warnings):
            added = patch(pod, options, sidecar)
            reason = Reason.INJECTED if added else Reason.ALREADY_INJECTED
            return AdmissionResult(
                "injected", reason, added, warnings, config_hash=sidecar.config_hash
            )
        case Skip(reason, warnings):
            return AdmissionResult("skipped", reason, warnings=warnings)
        case Deny(refusals):
            return AdmissionResult(
                "denied",
                refusals[0].reason,
                refusals=tuple(refusal.text for refusal in refusals),
                message=denial(refusals),
            )
