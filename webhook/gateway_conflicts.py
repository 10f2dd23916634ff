"""Pure: what in a pod would go around the gateway, and what would fail behind it.

The kubelet and other pods reach the pod's address. The app behind a gateway listens on loopback,
so a probe of its own port fails for ever: the pod's author learns of it here.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from webhook.annotations import GATEWAY_APP_PORT, GATEWAY_OPEN_PATHS
from webhook.gateway_options import GatewayOptions
from webhook.pod_safety import described
from webhook.pod_view import Container, Pod
from webhook.reasons import Reason, Violation, quoted
from webhook.sidecar_spec import CONTAINER


class _Action(msgspec.Struct):
    port: int | str | None = None
    path: str | None = None
    host: str | None = None
    scheme: str | None = None


class _Handler(msgspec.Struct):
    httpGet: _Action | None = None
    tcpSocket: _Action | None = None
    grpc: _Action | None = None


class _Lifecycle(msgspec.Struct):
    postStart: _Handler | None = None
    preStop: _Handler | None = None


class _Probed(msgspec.Struct):
    """The fields of a container that make the kubelet call it. Few pods need them read."""

    name: str
    startupProbe: _Handler | None = None
    readinessProbe: _Handler | None = None
    livenessProbe: _Handler | None = None
    lifecycle: _Lifecycle | None = None

    def handlers(self) -> Iterator[tuple[str, _Handler]]:
        lifecycle = self.lifecycle or _Lifecycle()
        for name, handler in (
            ("startupProbe", self.startupProbe),
            ("readinessProbe", self.readinessProbe),
            ("livenessProbe", self.livenessProbe),
            ("lifecycle.postStart", lifecycle.postStart),
            ("lifecycle.preStop", lifecycle.preStop),
        ):
            if handler is not None:
                yield name, handler


class _ProbedSpec(msgspec.Struct):
    containers: list[_Probed]
    initContainers: list[_Probed] | None = None


def gateway_conflicts(
    pod: Pod, others: Sequence[Container], gateway: GatewayOptions
) -> Iterator[Violation]:
    """What reaches the app past the gateway, and probes that cannot work with it."""
    for container in others:
        for port in container.ports or ():
            if port.containerPort == gateway.target and port.hostPort:
                yield Violation(
                    Reason.GATEWAY_BYPASSED,
                    f"{described(container)} opens port {gateway.target} on the node (hostPort "
                    f"{port.hostPort}), past the gateway; use port {gateway.port}",
                )
    names = {container.name: _port_names(container) for container in others}
    try:
        spec = msgspec.convert(pod.raw()["spec"], _ProbedSpec)
    except msgspec.ValidationError as invalid:
        yield Violation(Reason.MALFORMED, f"not a pod: {invalid}")
        return
    for probed in [*(spec.initContainers or ()), *spec.containers]:
        if probed.name != CONTAINER:
            yield from _probes(probed, names[probed.name], gateway)


def _port_names(container: Container) -> Mapping[str, int | None]:
    return {port.name: port.containerPort for port in container.ports or () if port.name}


def _probes(
    probed: _Probed, port_names: Mapping[str, int | None], gateway: GatewayOptions
) -> Iterator[Violation]:
    for field, handler in probed.handlers():
        for kind, action in (
            ("httpGet", handler.httpGet),
            ("tcpSocket", handler.tcpSocket),
            ("grpc", handler.grpc),
        ):
            if action is None or action.host:
                continue  # with a host it asks somebody else, or the node's loopback
            port = port_names.get(action.port) if isinstance(action.port, str) else action.port
            problem = _problem(kind, action, port, gateway)
            if problem is not None:
                text = f"container {quoted(probed.name)}: {field} {problem}"
                yield Violation(Reason.GATEWAY_PROBE, text)


def _problem(kind: str, action: _Action, port: object, gateway: GatewayOptions) -> str | None:
    """What is wrong with a probe, and the probe to write instead."""
    if port == gateway.target and not gateway.closed_by_policy:
        return (
            f"asks port {gateway.target}, where the app listens on loopback only; "
            f"{_instead(kind, action, gateway)}; or close the port by a NetworkPolicy and set "
            f"{GATEWAY_APP_PORT}: network-policy"
        )
    if port != gateway.port or kind == "tcpSocket":
        return None
    if kind == "grpc" or action.scheme == "HTTPS":
        return f"asks the gateway by {'gRPC' if kind == 'grpc' else 'HTTPS'}; it speaks plain HTTP"
    if (action.path or "/") not in gateway.open_paths:
        path = quoted(action.path or "/")
        return f"asks the gateway for {path} without a token; add it to {GATEWAY_OPEN_PATHS}"
    return None


def _instead(kind: str, action: _Action, gateway: GatewayOptions) -> str:
    if kind != "httpGet":
        return f"write an exec probe, or httpGet of port {gateway.port} and an open path"
    # No request with a query is open.
    path = (action.path or "/").partition("?")[0]
    opened = "" if path in gateway.open_paths else f"{GATEWAY_OPEN_PATHS}: {quoted(path)} and "
    return f"set {opened}httpGet: {{path: {quoted(path)}, port: {gateway.port}}}"
