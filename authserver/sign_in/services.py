"""What every step of a sign-in needs; these always travel together."""

from dataclasses import dataclass

from authserver.handles import NewHandle
from authserver.oauth.resources import ResourceMap
from authserver.storage.pending_sign_ins import PendingSignIns
from authserver.upstream.contract import Upstreams
from chassis.clock import Clock


@dataclass(frozen=True)
class SignInServices:
    issuer: str
    resources: ResourceMap
    upstreams: Upstreams
    pending_sign_ins: PendingSignIns
    clock: Clock
    new_handle: NewHandle
