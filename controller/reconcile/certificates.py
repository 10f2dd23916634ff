"""Authorities and certificates as a plan: which Secrets to make or renew, and when to look."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from controller.api.auth_server import AuthServer, CertificateSettings
from controller.api.conditions import Condition, Reason
from controller.api.objects import Object, path
from controller.api.v1alpha1 import duration
from controller.issuing import authority, leaves, rotation
from controller.issuing.authority import InvalidAuthority
from controller.issuing.rotation import AuthorityState, Rotation
from controller.reconcile.plan import (
    MANAGED_BY_LABEL,
    MANAGER,
    Event,
    Makers,
    certificate_issued,
    kept,
    labels,
)

Which = Literal["workloads", "servers"]

_DEFAULT_LIFETIME: Final = timedelta(hours=8760)


@dataclass(frozen=True)
class AuthorityPlan:
    """An authority's state, or why there is none, and the Secret to create or to update.

    There is no state where cert-manager signs; `trusted` is then what its chains end in, in PEM.
    """

    state: AuthorityState | None
    problem: Condition | None = None
    trusted: bytes = b""
    create: tuple[Object, ...] = ()
    update: tuple[Object, ...] = ()
    again_at: datetime | None = None

    @property
    def bundle(self) -> bytes:
        """Every certificate that peers have to trust, in PEM."""
        return self.state.bundle if self.state is not None else self.trusted


def authority_secret(auth_server: str, which: Which) -> str:
    return f"{auth_server}-{which}-authority"


def plan_authority(
    auth_server: AuthServer,
    which: Which,
    secrets: Mapping[str, Object],
    *,
    cluster_domain: str,
    held_up: bool,
    now: datetime,
    makers: Makers,
) -> AuthorityPlan:
    """What is to be done about one authority. An enterprise's own is read and never changed."""
    if leaf_settings(auth_server, which).source == "CertManager":
        return plan_trust(auth_server, which, secrets)
    named = path(auth_server.authority(which), "secretRef", "name")
    if named:
        return _foreign(str(named), secrets)
    name = authority_secret(auth_server.name, which)
    turn = rotation_of(auth_server, which, cluster_domain)
    secret = secrets.get(name)
    if secret is None:
        state = rotation.first(turn, now, makers.private_key)
        made = _secret(auth_server, name, state)
        return AuthorityPlan(state, create=(made,), again_at=rotation.next_change(state, turn))
    try:
        state = rotation.read(secret)
    except InvalidAuthority as invalid:
        return AuthorityPlan(None, _invalid(name, invalid))
    advanced = rotation.advance(state, turn, now, makers.private_key, held_up=held_up)
    again = max(rotation.next_change(advanced, turn), now + timedelta(minutes=1))
    if advanced is state:
        return AuthorityPlan(state, again_at=again)
    changed = _secret(auth_server, name, advanced)
    update = {
        **secret,
        "metadata": {**secret["metadata"], "annotations": changed["metadata"]["annotations"]},
        "data": changed["data"],
    }
    return AuthorityPlan(advanced, update=(update,), again_at=again)


def rotation_of(auth_server: AuthServer, which: Which, cluster_domain: str) -> Rotation:
    """How long the authority and its leaves live, and what it may sign."""
    purpose = (
        authority.workloads(auth_server.trust_domain)
        if which == "workloads"
        else authority.servers(auth_server.namespace, cluster_domain)
    )
    lifetime = duration(auth_server.authority(which).get("duration"), _DEFAULT_LIFETIME)
    return Rotation(purpose, lifetime, leaf_settings(auth_server, which).duration)


def leaf_settings(auth_server: AuthServer, which: Which) -> CertificateSettings:
    """How the leaves of an authority are issued."""
    if which == "workloads":
        return auth_server.workload_certificates
    return auth_server.server_certificates


def plan_trust(
    auth_server: AuthServer, which: Which, secrets: Mapping[str, Object]
) -> AuthorityPlan:
    """What peers trust where cert-manager signs: `ca.crt` of the Secret that is named.

    It is never taken from the Secret of a leaf: who writes that one would say who is trusted. An
    authority of ours from before is trusted for as long as its Secret is there.
    """
    name = str(path(auth_server.authority(which), "secretRef", "name") or "")
    roots = rotation.roots_of(secrets[name]) if name in secrets else b""
    if not roots:
        text = (
            f"source CertManager needs certificates.authorities.{which}.secretRef: a Secret of "
            f"this namespace whose ca.crt holds what the issuer's chains end in"
        )
        return AuthorityPlan(None, _not_ready(Reason.AUTHORITY_NOT_READY, text))
    former = secrets.get(authority_secret(auth_server.name, which))
    if former is not None:
        with suppress(InvalidAuthority):
            roots += rotation.read(former).bundle
    return AuthorityPlan(None, trusted=roots)


def _foreign(name: str, secrets: Mapping[str, Object]) -> AuthorityPlan:
    secret = secrets.get(name)
    if secret is None:
        text = f"there is no Secret {name}; make it, with tls.crt, tls.key and ca.crt"
        return AuthorityPlan(None, _not_ready(Reason.AUTHORITY_NOT_READY, text))
    try:
        return AuthorityPlan(rotation.read_foreign(secret))
    except InvalidAuthority as invalid:
        return AuthorityPlan(None, _invalid(name, invalid))


def _invalid(name: str, invalid: InvalidAuthority) -> Condition:
    return _not_ready(Reason.AUTHORITY_INVALID, f"the authority in Secret {name} {invalid}")


def _not_ready(reason: Reason, message: str) -> Condition:
    return Condition("CertificatesReady", "False", reason, message)


def _secret(auth_server: AuthServer, name: str, state: AuthorityState) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": name,
            "namespace": auth_server.namespace,
            "labels": labels(auth_server.name),
            "annotations": kept("Secret", name) | rotation.annotations_of(state),
        },
        "data": rotation.encoded(rotation.data_of(state)),
    }


@dataclass(frozen=True)
class LeafPlan:
    """The data of a Secret (base64) with a good credential, and what is known of it."""

    data: Mapping[str, str]
    credential: leaves.Credential
    again_at: datetime
    event: Event | None = None


def plan_leaf(
    before: Object | None,
    template: leaves.Template,
    state: AuthorityState,
    *,
    with_ca: bytes = b"",
    jitter_of: str,
    now: datetime,
    makers: Makers,
) -> LeafPlan:
    """Keep the credential in the Secret `before` while it is good, else issue another.

    `with_ca` is put beside it as `ca.crt`. Raises InvalidAuthority.
    """
    former = leaves.read(rotation.decoded(before)) if before is not None else None
    event = None
    if former is not None and leaves.is_good(former, template, state.current, jitter_of, now):
        credential = former
    else:
        credential, _ = leaves.issue(template, state.current, now, makers.private_key)
        name = template.names[0].value
        event = certificate_issued(credential.serial, credential.ends, name)
    data = {"tls.crt": credential.chain_pem, "tls.key": credential.key_pem}
    if with_ca:
        data["ca.crt"] = with_ca
    again = leaves.renewal(credential, template, jitter_of)
    return LeafPlan(rotation.encoded(data), credential, again, event)


def is_ours(secret: Object) -> bool:
    """Whether a Secret was made by this controller; another's is never overwritten."""
    secret_labels = secret.get("metadata", {}).get("labels") or {}
    return bool(secret_labels.get(MANAGED_BY_LABEL) == MANAGER)
