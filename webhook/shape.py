"""The shape a pod must have before anything reads it: checked once, at the rim.

The API server sends well-formed pods; files on disk and whoever else reaches the port need not.
Only the fields we read are described; all others may be anything. The pod itself is never
rebuilt from these types: it stays the raw dict.
"""

from typing import Any

import msgspec


class Malformed(ValueError):
    """The pod is not one; the text names the place, and never repeats what stands there."""


class _Named(msgspec.Struct, kw_only=True):
    name: str | None = None


class _Owner(_Named, kw_only=True, omit_defaults=True):
    kind: str | None = None
    controller: bool | None = None


class _Metadata(_Named, kw_only=True, omit_defaults=True):
    generateName: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: list[_Owner] | None = None


class _SecretSource(_Named, kw_only=True):
    secretName: str | None = None


class _SignedSource(msgspec.Struct):
    signerName: str | None = None


class _Projection(msgspec.Struct):
    secret: _Named | None = None
    podCertificate: _SignedSource | None = None


class _Projected(msgspec.Struct):
    sources: list[_Projection] | None = None


class _Csi(msgspec.Struct):
    driver: str | None = None


class _Volume(_Named, kw_only=True):
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


class _Mount(_Named, kw_only=True):
    mountPath: str | None = None


class _Port(msgspec.Struct):
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


class _Container(msgspec.Struct, kw_only=True):
    name: str
    env: list[_Variable] | None = None
    envFrom: list[_VariableSource] | None = None
    volumeMounts: list[_Mount] | None = None
    ports: list[_Port] | None = None
    securityContext: _SecurityContext | None = None
    resources: _Resources | None = None


class _Os(msgspec.Struct):
    name: str | None = None


class _Spec(msgspec.Struct, kw_only=True):
    containers: list[_Container]
    initContainers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    nodeSelector: dict[str, str] | None = None
    os: _Os | None = None
    securityContext: _SecurityContext | None = None
    resources: _Resources | None = None
    hostNetwork: bool | None = None
    hostPID: bool | None = None
    hostIPC: bool | None = None
    shareProcessNamespace: bool | None = None


class _Pod(msgspec.Struct, kw_only=True):
    spec: _Spec
    metadata: _Metadata | None = None


class Created(msgspec.Struct):
    """A pod as far as it is read at all: `managedFields`, often the most of it, is skipped."""

    spec: Any = None
    metadata: _Metadata | None = None


def raw(found: object) -> dict[str, Any]:
    """A pod as a raw dict again: metadata down to the fields we read, the spec as it came.

    `found` is Created, or whatever else JSON made of a review's object. Raises Malformed.
    """
    try:
        created = found if isinstance(found, Created) else msgspec.convert(found, Created)
    except (msgspec.ValidationError, RecursionError) as invalid:
        raise Malformed(f"not a pod: {invalid}") from None
    parsed: dict[str, Any] = {"spec": created.spec}
    if created.metadata is not None:
        parsed["metadata"] = msgspec.to_builtins(created.metadata)
    return check(parsed)


def check(pod: object) -> dict[str, Any]:
    """The very same pod, now known to have the fields we read in their types. Raises Malformed."""
    try:
        msgspec.convert(pod, _Pod)
    except (msgspec.ValidationError, RecursionError) as invalid:
        raise Malformed(f"not a pod: {invalid}") from None
    assert isinstance(pod, dict)
    return pod
