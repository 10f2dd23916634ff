"""The life of an authority: made, announced, in use, retired. Peers always trust both sides.

An authority is a Secret of the controller's namespace. `tls.crt` and `tls.key` sign; `next.crt` and
`next.key` are announced and sign nothing yet; `old.crt` signed until a moment ago. The bundle is
all of their certificates. A successor signs only after every peer had time to read the bundle, and
the predecessor is dropped only after every leaf of its has ended.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller.api.objects import Object, annotations, format_time, parse_time
from controller.issuing import authority
from controller.issuing.authority import Authority, InvalidAuthority, KeyMaker, Purpose

RETIRED_AT: Final = "tokenward.dev/authority-retired-at"
ANNOUNCED_AT: Final = "tokenward.dev/authority-announced-at"

# From the announcement to the first signature: a kubelet looks at its volumes once a minute or two.
ANNOUNCEMENT: Final = timedelta(hours=1)
_MARGIN: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class AuthorityState:
    """An authority, its announced successor, and certificates that are trusted still."""

    current: Authority
    upcoming: Authority | None = None
    announced_at: datetime | None = None
    old_pem: bytes = b""
    retired_at: datetime | None = None
    extra_pem: bytes = b""  # the roots above an intermediate of an enterprise

    @property
    def bundle(self) -> bytes:
        """Every certificate that peers have to trust, in PEM."""
        anchors = [self.current.certificate_pem] if not self.extra_pem else []
        if self.upcoming is not None:
            anchors.append(self.upcoming.certificate_pem)
        return b"".join([self.extra_pem, *anchors, self.old_pem])


@dataclass(frozen=True)
class Rotation:
    """How long an authority lives, and how long at most its leaves do."""

    purpose: Purpose
    lifetime: timedelta
    leaf_lifetime: timedelta


def first(rotation: Rotation, now: datetime, new_key: KeyMaker) -> AuthorityState:
    """An authority where there was none."""
    made = authority.create(rotation.purpose, key=new_key(), now=now, lifetime=rotation.lifetime)
    return AuthorityState(made)


def advance(
    state: AuthorityState, rotation: Rotation, now: datetime, new_key: KeyMaker, *, held_up: bool
) -> AuthorityState:
    """The state as it should be now; the same object where nothing is due.

    `held_up`: a peer is known that does not have the bundle yet, so a successor must wait. It does
    not wait beyond the end of the authority in use.
    """
    certificate = state.current.certificate
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if state.upcoming is None:
        if now >= certificate.not_valid_before_utc + lifetime * 2 / 3:
            made = authority.create(
                rotation.purpose, key=new_key(), now=now, lifetime=rotation.lifetime
            )
            return replace(state, upcoming=made, announced_at=now)
    elif now >= (state.announced_at or now) + ANNOUNCEMENT:
        ending = now >= certificate.not_valid_after_utc - rotation.leaf_lifetime
        if not held_up or ending:
            return AuthorityState(
                state.upcoming, old_pem=state.current.certificate_pem, retired_at=now
            )
    if state.retired_at is not None and now >= state.retired_at + rotation.leaf_lifetime + _MARGIN:
        return replace(state, old_pem=b"", retired_at=None)
    return state


def next_change(state: AuthorityState, rotation: Rotation) -> datetime:
    """When `advance` has to be asked again at the latest."""
    certificate = state.current.certificate
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    due = [certificate.not_valid_before_utc + lifetime * 2 / 3]
    if state.upcoming is not None:
        due = [(state.announced_at or certificate.not_valid_before_utc) + ANNOUNCEMENT]
    if state.retired_at is not None:
        due.append(state.retired_at + rotation.leaf_lifetime + _MARGIN)
    return min(due)


def read(secret: Object) -> AuthorityState:
    """The state in a Secret of ours. Raises InvalidAuthority."""
    data = decoded(secret)
    current = authority.load(data.get("tls.crt", b""), data.get("tls.key", b""))
    upcoming = None
    if "next.crt" in data:
        upcoming = authority.load(data["next.crt"], data.get("next.key", b""))
    return AuthorityState(
        current,
        upcoming,
        parse_time(annotations(secret).get(ANNOUNCED_AT)),
        _certificates_only(data.get("old.crt", b"")),
        parse_time(annotations(secret).get(RETIRED_AT)),
    )


def read_foreign(secret: Object) -> AuthorityState:
    """The intermediate of an enterprise: `ca.crt` holds what its chain ends in.

    Raises InvalidAuthority.
    """
    data = decoded(secret)
    current = authority.load(data.get("tls.crt", b""), data.get("tls.key", b""))
    roots = roots_of(secret)
    if not roots:
        raise InvalidAuthority("has no ca.crt with the certificates that its chain ends in")
    return AuthorityState(current, extra_pem=roots)


def roots_of(secret: Object) -> bytes:
    """The certificates in `ca.crt` of a Secret, in PEM; empty where there is none."""
    return _certificates_only(decoded(secret).get("ca.crt", b""))


def data_of(state: AuthorityState) -> dict[str, bytes]:
    """What the Secret of ours holds."""
    data = {
        "tls.crt": state.current.certificate_pem,
        "tls.key": authority.key_pem(state.current.key),
        "ca.crt": state.bundle,
    }
    if state.upcoming is not None:
        data["next.crt"] = state.upcoming.certificate_pem
        data["next.key"] = authority.key_pem(state.upcoming.key)
    if state.old_pem:
        data["old.crt"] = state.old_pem
    return data


def annotations_of(state: AuthorityState) -> dict[str, str]:
    result = {ANNOUNCED_AT: state.announced_at, RETIRED_AT: state.retired_at}
    return {name: format_time(time) for name, time in result.items() if time is not None}


def decoded(secret: Object) -> dict[str, bytes]:
    """The members of a Secret; one that is not base64 is left out."""
    data = secret.get("data")
    result = {}
    for name, text in data.items() if isinstance(data, Mapping) else ():
        try:
            result[str(name)] = b64decode(str(text), validate=True)
        except ValueError:
            continue
    return result


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    """The `data` of a Secret."""
    return {name: b64encode(value).decode("ascii") for name, value in sorted(data.items())}


def _certificates_only(pem: bytes) -> bytes:
    """Certificates and nothing else of a PEM text: bundles are public."""
    result: list[x509.Certificate] = authority.certificates(pem)
    return b"".join(one.public_bytes(Encoding.PEM) for one in result)
