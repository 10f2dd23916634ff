"""How the authserver is reached: its Services, its NetworkPolicies, its disruption budget."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.api.auth_server import AuthServer
from controller.api.objects import Object
from controller.reconcile import authserver_file as file
from controller.reconcile.plan import MANAGER, NAME_LABEL

_POSTGRESQL_PORT: Final = 5432
_PRIVATE: Final = [
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
]  # fmt: skip


class Network:
    """Renders what is around the pods of one MCPAuthServer.

    `make` renders an object of this owner; `selector` are the labels of the pods.
    """

    def __init__(
        self,
        auth_server: AuthServer,
        selector: Mapping[str, str],
        make: Callable[..., dict[str, Any]],
    ) -> None:
        self._auth_server, self._selector, self._make = auth_server, dict(selector), make
        self._name = auth_server.name

    def public_service(self) -> Object:
        """For MCP clients and browsers, through whatever ends TLS in front of it."""
        template = self._auth_server.spec.get("template")
        template = template if isinstance(template, Mapping) else {}
        made = self._make(
            "v1",
            "Service",
            self._name,
            spec={
                "type": template.get("serviceType", "ClusterIP"),
                "selector": self._selector,
                "ports": [{"name": "http", "port": 80, "targetPort": "public", "protocol": "TCP"}],
            },
        )
        if template.get("serviceAnnotations"):
            made["metadata"]["annotations"] = dict(template["serviceAnnotations"])
        return made

    def internal_service(self) -> Object:
        """For sidecars only."""
        port = {
            "name": "internal",
            "port": file.INTERNAL_PORT,
            "targetPort": "internal",
            "protocol": "TCP",
        }
        spec = {"selector": self._selector, "ports": [port]}
        return self._make("v1", "Service", f"{self._name}-internal", spec=spec)

    def policy(self) -> Object:
        """Who may reach the pods, and where they may go."""
        web = [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": _PRIVATE}},
            {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}},
        ]
        system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
        injected = {"matchLabels": {"tokenward.dev/injected": "true"}}
        controller = {"matchLabels": {NAME_LABEL: MANAGER}}
        return self._make(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            self._name,
            spec={
                "podSelector": {"matchLabels": self._selector},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"ports": [_tcp(file.PUBLIC_PORT)]},
                    {
                        "from": [{"namespaceSelector": {}, "podSelector": injected}],
                        "ports": [_tcp(file.INTERNAL_PORT)],
                    },
                    {"from": [{"podSelector": controller}], "ports": [_tcp(file.OPS_PORT)]},
                ],
                "egress": [
                    {
                        "to": [{"namespaceSelector": system}],
                        "ports": [{"protocol": "UDP", "port": 53}, _tcp(53)],
                    },
                    {"to": web, "ports": [_tcp(443)]},
                ],
            },
        )

    def postgresql_policy(self) -> Object:
        """The way to the database."""
        return self._make(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            f"{self._name}-postgresql",
            spec={
                "podSelector": {"matchLabels": self._selector},
                "policyTypes": ["Egress"],
                "egress": [
                    {
                        "to": [{"ipBlock": {"cidr": block}} for block in _PRIVATE[:3]],
                        "ports": [_tcp(_POSTGRESQL_PORT)],
                    }
                ],
            },
        )

    def disruption_budget(self) -> Object:
        """How many pods an eviction leaves."""
        return self._make(
            "policy/v1",
            "PodDisruptionBudget",
            self._name,
            spec={
                "minAvailable": 1 if self._auth_server.replicas > 1 else 0,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": self._selector},
            },
        )


def _tcp(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}
