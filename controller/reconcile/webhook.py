"""The webhook's configuration file, its serving certificate, and the bundle API servers trust."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import yaml

from controller.api.auth_server import AuthServer
from controller.api.objects import Object, dicts, metadata
from controller.api.server_auth import ServerAuth
from controller.issuing import leaves, rotation
from controller.issuing.rotation import AuthorityState
from controller.reconcile import certificates, guard
from controller.reconcile.acceptance import internal_host
from controller.reconcile.plan import MANAGED_BY_LABEL, MANAGER, Makers, Plan
from controller.settings import WebhookSettings

CONFIG_FILE: Final = "webhook.yaml"
CA_NAME: Final = "ca.crt"
# Beside the serving certificate, or where cert-manager keeps that one, beside the configuration.
CA_FILE: Final = f"/var/run/tokenward/serving/{CA_NAME}"
CA_FILE_IN_CONFIG: Final = f"/etc/tokenward/{CA_NAME}"
MAX_BYTES: Final = 1_000_000  # a ConfigMap holds 1 MiB with all its metadata

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)
_LABELS: Final = {MANAGED_BY_LABEL: MANAGER, "app.kubernetes.io/name": "tokenward-webhook"}


@dataclass(frozen=True)
class Observed:
    """`servers` are the accepted ones; `configuration` the MutatingWebhookConfiguration.

    `running` are the images of the sidecars that run. `bundle` is what they have to trust, in PEM.
    `authority` signs; None where cert-manager keeps the serving certificate.
    """

    auth_server: AuthServer
    servers: tuple[ServerAuth, ...]
    bundle: bytes
    authority: AuthorityState | None
    serving_secret: Object | None
    configuration: Object | None
    guard: Object | None = None
    running: Collection[str] = ()


def plan(
    settings: WebhookSettings,
    observed: Observed,
    cluster_domain: str,
    now: datetime,
    makers: Makers,
) -> Plan:
    """What the webhook needs. Raises InvalidAuthority."""
    text = render(settings, observed.auth_server, observed.servers)
    files = {CONFIG_FILE: text}
    wanted: list[Object] = []
    again, events = [], []
    if observed.authority is not None:
        leaf = _leaf(settings, observed, observed.authority, cluster_domain, now, makers)
        meta = _meta(settings.serving_secret, observed.auth_server)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta}
        wanted.append({**secret, "type": "kubernetes.io/tls", "data": dict(leaf.data)})
        again.append(leaf.again_at)
        events += [leaf.event] if leaf.event is not None else []
    else:
        files[CA_NAME] = observed.bundle.decode("ascii")
    meta = _meta(settings.config_map, observed.auth_server)
    wanted.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files})
    if observed.configuration is not None:
        wanted.append(ca_bundles(observed.configuration, observed.bundle))
    if observed.guard is not None:
        images = guard.allowed_images(observed.guard, settings.image, now)
        former = guard.former_images(observed.guard, settings.image, now, observed.running)
        lines = text.partition("\nservers:")[0]
        wanted.append(guard.literals(observed.guard, lines, images, former))
        again += [until for until in images.values() if until is not None]
    return Plan(apply=tuple(wanted), events=tuple(events), again_at=min(again, default=None))


def _leaf(
    settings: WebhookSettings,
    observed: Observed,
    authority: AuthorityState,
    cluster_domain: str,
    now: datetime,
    makers: Makers,
) -> certificates.LeafPlan:
    """The serving certificate, with the bundle beside it. Raises InvalidAuthority."""
    host = f"{settings.service}.{observed.auth_server.namespace}.svc"
    lives = observed.auth_server.server_certificates
    template = leaves.server_template(
        [host, f"{host}.{cluster_domain}"], lives.duration, lives.renew_before
    )
    return certificates.plan_leaf(
        observed.serving_secret,
        template,
        authority,
        with_ca=observed.bundle,
        jitter_of=settings.service,
        now=now,
        makers=makers,
    )


def _meta(name: str, auth_server: AuthServer) -> dict[str, Any]:
    return {"name": name, "namespace": auth_server.namespace, "labels": _LABELS}


def render(
    settings: WebhookSettings, auth_server: AuthServer, servers: Iterable[ServerAuth]
) -> str:
    """The webhook's file. The guard reads four of its lines, so those are written plainly."""
    source = auth_server.workload_certificates.source
    by_cert_manager = auth_server.server_certificates.source == "CertManager"
    authserver = {
        "url": f"https://{internal_host(auth_server)}:8443",
        "caFile": CA_FILE_IN_CONFIG if by_cert_manager else CA_FILE,
    }
    members = {
        "identity": {"source": "podCertificate" if source == "PodCertificate" else "secret"},
        **settings.configuration,
        "trustDomain": auth_server.trust_domain,
        "issuer": auth_server.issuer,
        "authserver": authserver,
    }
    text: str = yaml.safe_dump(members, sort_keys=False, width=4096)
    return text + _servers(servers, MAX_BYTES - len(text))


def _servers(servers: Iterable[ServerAuth], room: int) -> str:
    """A line for each server, in JSON, which is YAML too.

    A server that finds no room needs the annotation `resource` in its pods.
    """
    lines = []
    for one in sorted(servers, key=lambda server: server.key):
        entry = {"namespace": one.key.namespace, "name": one.key.name, "resource": one.resource}
        line = f"  - {json.dumps(entry)}\n"
        room -= len(line)
        if room < 32:
            break
        lines.append(line)
    return "servers:\n" + "".join(lines) if lines else "servers: []\n"


def ca_bundles(configuration: Object, bundle: bytes) -> Object:
    """Our one field of each webhook; the rest is whose it is."""
    encoded = rotation.encoded({"bundle": bundle})["bundle"]
    return {
        "apiVersion": configuration["apiVersion"],
        "kind": configuration["kind"],
        "metadata": {"name": metadata(configuration)["name"]},
        "webhooks": [
            {"name": one["name"], "clientConfig": {"caBundle": encoded}}
            for one in dicts(configuration.get("webhooks"))
        ],
    }


def pod_annotation(bundle: bytes) -> str:
    """The text that the webhook writes into pods for this bundle."""
    return "\n".join(_CERTIFICATE.findall(bundle.decode("ascii"))) + "\n"
