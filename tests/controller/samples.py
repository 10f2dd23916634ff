"""Objects of both kinds, as an API server has them after defaulting."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.api.auth_server import AuthServer
from controller.api.server_auth import ServerAuth
from controller.issuing.authority import new_key
from controller.reconcile.plan import Makers

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
SYSTEM = "tokenward-system"
ISSUER = "https://auth.example.com"

MAKERS = Makers(new_key, lambda: bytes(range(32)))


def stamp(after: timedelta = timedelta(0)) -> str:
    return (NOW + after).strftime("%Y-%m-%dT%H:%M:%SZ")


def uid_of(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


def tenant(**changes: Any) -> dict[str, Any]:
    return {
        "namespaces": {"matchNames": ["mcp-servers", "others"]},
        "servers": ["*"],
        "resources": ["https://*.mcp.example.com/*"],
        "upstreams": ["github", "slack"],
        "release": ["HandOut", "Attach"],
        **changes,
    }


def auth_server_object(name: str = "main", **changes: Any) -> dict[str, Any]:
    spec = {
        "issuer": ISSUER,
        "trustDomain": "cluster.local",
        "replicas": 1,
        "upstreams": [
            {"name": "github", "preset": "github", "clientId": "Iv1",
             "clientSecretRef": {"name": "github-app", "key": "secret"}},
            {"name": "slack", "preset": "slack", "clientId": "1.2"},
        ],
        "tenants": [tenant()],
        "storage": {"sqlite": {"size": "1Gi"}},
        "certificates": {
            "workloads": {"source": "BuiltIn", "duration": "24h"},
            "server": {"source": "BuiltIn", "duration": "2160h"},
            "authorities": {"workloads": {"duration": "8760h"}, "servers": {"duration": "8760h"}},
        },
        "keys": {"signingRotation": "2160h"},
        "configuration": {"logLevel": "info"},
        "template": {"serviceType": "ClusterIP"},
        **changes,
    }  # fmt: skip
    return {
        "apiVersion": "tokenward.dev/v1alpha1",
        "kind": "MCPAuthServer",
        "metadata": {
            "name": name,
            "namespace": SYSTEM,
            "uid": uid_of("auth", name),
            "generation": 1,
            "creationTimestamp": stamp(-timedelta(days=1)),
        },
        "spec": spec,
    }


def server_object(
    name: str = "notes",
    namespace: str = "mcp-servers",
    *,
    resource: str = "https://notes.mcp.example.com/mcp",
    age: timedelta = timedelta(0),
    uid: str | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """`age` is how long before NOW it was made."""
    return {
        "apiVersion": "tokenward.dev/v1alpha1",
        "kind": "MCPServerAuth",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or uid_of(namespace, name),
            "generation": 1,
            "creationTimestamp": stamp(-age),
        },
        "spec": {
            "authServerRef": {"name": "main", "namespace": SYSTEM},
            "resource": resource,
            "upstreams": [{"name": "github", "connect": "AtSignIn"}],
            "release": ["HandOut", "Attach"],
            **changes,
        },
    }


def auth_server(name: str = "main", **changes: Any) -> AuthServer:
    return AuthServer.of(auth_server_object(name, **changes))


def server(name: str = "notes", namespace: str = "mcp-servers", **changes: Any) -> ServerAuth:
    return ServerAuth.of(server_object(name, namespace, **changes))


def condition(status: Any, kind: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    (found,) = (one for one in status["conditions"] if one["type"] == kind)
    return found["status"], found["reason"]
