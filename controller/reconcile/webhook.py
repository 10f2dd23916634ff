"""The webhook's configuration file, its serving certificate, and the bundle API servers trust."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import yaml

from controller.api.objects import Object, dicts, metadata
from controller.api.v1alpha1 import AuthServer, ServerAuth
from controller.issuing import leaves, rotation
from controller.issuing.rotation import AuthorityState
from controller.reconcile import certificates, guard
from controller.reconcile.acceptance import internal_host
from controller.reconcile.plan import MANAGED_BY_LABEL, MANAGER, Makers, Plan
from controller.settings import WebhookSettings

CONFIG_FILE: Final = "webhook.yaml"
CA_FILE: Final = "/var/run/tokenward/serving/ca.crt"
MAX_BYTES: Final = 1_000_000  # a ConfigMap holds 1 MiB with all its metadata

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)
_LABELS: Final = {MANAGED_BY_LABEL: MANAGER, "app.kubernetes.io/name": "tokenward-webhook"}


@dataclass(frozen=True)
class Observed:
    """`servers` are the accepted ones; `configuration` the MutatingWebhookConfiguration.

    `running` are the images of the sidecars that run.
    """

    auth_server: AuthServer
    servers: tuple[ServerAuth, ...]
    authority: AuthorityState
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
    namespace = observed.auth_server.namespace
    host = f"{settings.service}.{namespace}.svc"
    server_certificates = observed.auth_server.server_certificates
    template = leaves.server_template(
        [host, f"{host}.{cluster_domain}"],
        server_certificates.duration,
        server_certificates.renew_before,
    )
    bundle = observed.authority.bundle
    leaf = certificates.plan_leaf(
        observed.serving_secret,
        template,
        observed.authority,
        with_ca=bundle,
        jitter_of=settings.service,
        now=now,
        makers=makers,
    )
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": settings.serving_secret, "namespace": namespace, "labels": _LABELS},
        "data": dict(leaf.data),
    }
    text = render(settings, observed.auth_server, observed.servers)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": settings.config_map, "namespace": namespace, "labels": _LABELS},
        "data": {CONFIG_FILE: text},
    }
    wanted: list[Object] = [secret, config_map]
    if observed.configuration is not None:
        wanted.append(ca_bundles(observed.configuration, bundle))
    again = [leaf.again_at]
    if observed.guard is not None:
        images = guard.allowed_images(observed.guard, settings.image, now)
        former = guard.former_images(observed.guard, settings.image, now, observed.running)
        lines = text.partition("\nservers:")[0]
        wanted.append(guard.literals(observed.guard, lines, images, former))
        again += [until for until in images.values() if until is not None]
    events = (leaf.event,) if leaf.event is not None else ()
    return Plan(apply=tuple(wanted), events=events, again_at=min(again), ends=leaf.credential.ends)


def render(
    settings: WebhookSettings, auth_server: AuthServer, servers: Iterable[ServerAuth]
) -> str:
    """The webhook's file. The guard reads four of its lines, so those are written plainly."""
    source = auth_server.workload_certificates.source
    members = {
        "identity": {"source": "podCertificate" if source == "PodCertificate" else "secret"},
        **settings.configuration,
        "trustDomain": auth_server.trust_domain,
        "issuer": auth_server.issuer,
        "authserver": {"url": f"https://{internal_host(auth_server)}:8443", "caFile": CA_FILE},
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
