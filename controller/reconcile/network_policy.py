"""The NetworkPolicy of one MCPServerAuth, which closes the app's own port behind the gateway.

Whether the cluster's network enforces policies cannot be seen from here.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from controller.api.conditions import Condition, Reason
from controller.api.objects import Object, dicts, labels, metadata
from controller.api.server_auth import OpenPorts, ServerAuth
from controller.reconcile.certificates import is_ours
from controller.reconcile.opted_in import INJECTED
from controller.reconcile.plan import MANAGED_BY_LABEL, MANAGER, NAME_LABEL
from controller.reconcile.server_credential import Unprepared, credential_key, made

TYPE: Final = "NetworkPolicyReady"
PORT_TO_CLOSE: Final = "portToClose"
"""The member of a slimmed pod with the app's port, where a policy has to close it."""


def wanted(server: ServerAuth, ports: OpenPorts) -> Object:
    """Lets everybody reach these ports of the server's pods, and nobody any other port."""
    opened = [{"protocol": "TCP", "port": port} for port in ports.ports]
    return {
        **made(server, "networking.k8s.io/v1", "NetworkPolicy"),
        "spec": {
            "podSelector": {"matchLabels": _selected(server, ports)},
            "policyTypes": ["Ingress"],
            # A rule with no port would open all of them.
            "ingress": [{"ports": opened}] if opened else [],
        },
    }


def port_to_close(sidecar: Object) -> int | None:
    """The app's port that the gateway of this container leaves to a NetworkPolicy."""
    variables = {one.get("name"): one.get("value") for one in dicts(sidecar.get("env"))}
    target = str(variables.get("TOKENWARD_GATEWAY", "")).partition(":")[2]
    if variables.get("TOKENWARD_GATEWAY_APP_PORT") != "network-policy":
        return None
    return int(target) if target.isdecimal() else None


def judge(
    server: ServerAuth,
    ports: OpenPorts,
    present: Object | Unprepared | None,
    pods: Iterable[Object],
) -> Condition:
    """Whether the policy that is `present` does what the gateways of these pods rely on.

    `pods` are slimmed. `present` is None where the server is not accepted and nothing is made.
    """
    name, namespace = credential_key(server).name, server.key.namespace
    if isinstance(present, Unprepared):
        text = (
            f"the controller may not keep NetworkPolicies in {namespace}; apply "
            f"manifests/tenant/network-policy there: kubectl apply -n {namespace} "
            "-k manifests/tenant/network-policy"
        )
        return Condition(TYPE, "False", Reason.NAMESPACE_NOT_PREPARED, text)
    if present is None:
        text = "no NetworkPolicy is made or changed before Accepted"
        return Condition(TYPE, "False", Reason.NOT_ACCEPTED, text)
    if not is_ours(present):
        text = (
            f"NetworkPolicy {name} was made by somebody else; delete it, or label it "
            f"{MANAGED_BY_LABEL}={MANAGER}"
        )
        return Condition(TYPE, "False", Reason.NETWORK_POLICY_NOT_OURS, text)
    selected = _selected(server, ports)
    left_open = sorted(_name(pod) for pod in pods if _reaches(pod, selected, ports))
    if left_open:
        text = (
            f"the app's own port stays open in {len(left_open)} pods, such as {left_open[0]}: the "
            f"policy selects {_written(selected)} and opens {', '.join(map(str, ports.ports))}"
        )
        return Condition(TYPE, "False", Reason.APP_PORT_OPEN, text)
    return Condition(TYPE, "True", Reason.APP_PORT_CLOSED, "")


def _selected(server: ServerAuth, ports: OpenPorts) -> Mapping[str, str]:
    """Pods of others have no sidecar of ours, so a wrong label never closes, or opens, theirs."""
    return {**(ports.match_labels or {NAME_LABEL: server.key.name}), INJECTED: "true"}


def _reaches(pod: Object, selected: Mapping[str, str], ports: OpenPorts) -> bool:
    """Whether others reach the app's port in a pod whose gateway takes it for closed."""
    port, phase = pod.get(PORT_TO_CLOSE), (pod.get("status") or {}).get("phase")
    if port is None or phase in ("Succeeded", "Failed"):
        return False
    return port in ports.ports or any(labels(pod).get(k) != v for k, v in selected.items())


def _name(pod: Object) -> str:
    return str(metadata(pod).get("name"))


def _written(selected: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in selected.items())
