"""The closed vocabulary of decisions, shared by metrics, audit annotations and denial texts.

Whatever a pod's author wrote is escaped and cut before it enters a text: texts reach terminals,
events and logs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_DENIAL: Final = 1024
MAX_WARNING: Final = 120
_MAX_QUOTED: Final = 64

# How many faults of one kind are told with what would be right, which takes time to find and room
# to keep. A denial has room for a dozen of them at most.
EXPLAINED: Final = 20


class Reason(StrEnum):
    """Why a pod was injected, left alone or denied."""

    INJECTED = "injected"
    ALREADY_INJECTED = "already-injected"

    NOT_A_POD_CREATION = "not-a-pod-creation"
    NAMESPACE_NEVER_INJECTED = "namespace-never-injected"
    MIRROR_POD = "mirror-pod"
    NOT_REQUESTED = "not-requested"
    OPTED_OUT = "opted-out"

    UNKNOWN_KEY = "unknown-key"
    RESERVED_KEY = "reserved-key"
    BAD_VALUE = "bad-value"
    BAD_RESOURCES = "bad-resources"
    NO_SERVER_NAME = "no-server-name"
    SERVER_NOT_KNOWN = "server-not-known"
    NAMESPACE_MISMATCH = "namespace-mismatch"
    NO_SUCH_CONTAINER = "no-such-container"
    WINDOWS = "windows"
    HOST_NAMESPACE = "host-namespace"
    SHARED_PROCESS_NAMESPACE = "shared-process-namespace"
    PRIVILEGED = "privileged"
    HOST_PATH = "host-path"
    SAME_USER = "same-user"
    RESERVED_NAME = "reserved-name"
    RESERVED_MOUNT = "reserved-mount"
    CREDENTIAL_REACHED = "credential-reached"
    PORT_CLASH = "port-clash"
    GATEWAY_BYPASSED = "gateway-bypassed"
    GATEWAY_PROBE = "gateway-probe"

    MALFORMED = "malformed"
    FAILED = "failed"


@dataclass(frozen=True)
class Violation:
    """One thing that keeps a pod from being injected; the text is for the pod's author."""

    reason: Reason
    text: str


def quoted(text: str) -> str:
    """What a pod's author wrote, in ASCII, escaped, and cut to 64 characters."""
    cut = text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…"
    return json.dumps(cut)


def denial(refusals: Sequence[Violation]) -> str:
    """The refusals in one text of at most 1 KiB; those that do not fit are counted.

    The first is always in it, cut if need be. However many there are, no more are looked at than
    fit: a stranger's pod may have a hundred thousand.
    """
    text, sidecar_options = "tokenward: ", ""
    for at, refusal in enumerate(refusals, start=1):
        text += f"; ({at}) {refusal.text}" if sidecar_options else f"({at}) {refusal.text}"
        rest = f"; and {len(refusals) - at} more" if at < len(refusals) else ""
        if not sidecar_options or len(text) + len(rest) <= MAX_DENIAL:
            sidecar_options = text[: MAX_DENIAL - len(rest)] + rest
        if len(text) > MAX_DENIAL:
            break
    return sidecar_options


def warning(text: str) -> str:
    """A warning of at most 120 characters, which is what clients are sure to show."""
    return text if len(text) <= MAX_WARNING else text[: MAX_WARNING - 3] + "..."
