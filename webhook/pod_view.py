"""A typed, read-only view of a pod: the fields that decisions depend on, checked once.

The API server sends well-formed pods. Files and other callers of the port may send anything. No pod
is ever written from these types, so fields that are not listed here never get lost.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class Malformed(ValueError):
    """The object is not a pod. The text names the field and never repeats its value."""


class _Named(msgspec.Struct, kw_only=True):
    name: str | None = None


class Owner(_Named, kw_only=True):
    kind: str | None = None
    controller: bool | None = None


class Metadata(_Named, kw_only=True):
    generateName: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: list[Owner] | None = None


class _SecretSource(_Named, kw_only=True):
    secretName: str | None = None


class _SignedSource(msgspec.Struct):
    signerName: str | None = None


class Projection(msgspec.Struct):
    secret: _Named | None = None
    podCertificate: _SignedSource | None = None


class _Projected(msgspec.Struct):
    sources: list[Projection] | None = None


class _Csi(msgspec.Struct):
    driver: str | None = None


class _HostPath(msgspec.Struct):
    path: str | None = None


class Volume(_Named, kw_only=True):
    hostPath: _HostPath | None = None
    secret: _SecretSource | None = None
    projected: _Projected | None = None
    csi: _Csi | None = None


class _ValueFrom(msgspec.Struct):
    secretKeyRef: _Named | None = None


class _Variable(_Named, kw_only=True):
    value: str | None = None
    valueFrom: _ValueFrom | None = None


class _VariableSource(msgspec.Struct):
    secretRef: _Named | None = None


class Mount(_Named, kw_only=True):
    mountPath: str | None = None


class Port(_Named, kw_only=True):
    containerPort: int | None = None
    hostPort: int | None = None


class _Capabilities(msgspec.Struct):
    add: list[str] | None = None


class _SecurityContext(msgspec.Struct):
    privileged: bool | None = None
    capabilities: _Capabilities | None = None
    runAsUser: int | None = None


class _Resources(msgspec.Struct):
    requests: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None


class Container(msgspec.Struct, kw_only=True):
    name: str
    env: list[_Variable] | None = None
    envFrom: list[_VariableSource] | None = None
    volumeMounts: list[Mount] | None = None
    ports: list[Port] | None = None
    securityContext: _SecurityContext | None = None
    resources: _Resources | None = None


class _Os(msgspec.Struct):
    name: str | None = None


class Spec(msgspec.Struct, kw_only=True):
    containers: list[Container]
    initContainers: list[Container] | None = None
    volumes: list[Volume] | None = None
    nodeSelector: dict[str, str] | None = None
    os: _Os | None = None
    securityContext: _SecurityContext | None = None
    resources: dict[str, Any] | None = None
    hostNetwork: bool | None = None
    hostPID: bool | None = None
    hostIPC: bool | None = None
    shareProcessNamespace: bool | None = None


class PodView(msgspec.Struct, kw_only=True):
    """The decoded pod. `managedFields`, often its largest part, is skipped."""

    spec: Spec
    metadata: Metadata | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod to decide on: the fields we read, and on demand the raw object."""

    metadata: Metadata | None
    spec: Spec
    raw: Callable[[], Mapping[str, Any]]


def read(raw: Any) -> Pod:
    """Check a decoded JSON or YAML object. Raises Malformed."""
    try:
        readable = msgspec.convert(raw, PodView)
    except (msgspec.ValidationError, RecursionError) as invalid:
        raise Malformed(f"not a pod: {invalid}") from None
    return Pod(readable.metadata, readable.spec, lambda: raw)
