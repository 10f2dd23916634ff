"""The rights that the manifests give the controller, as RBAC writes them."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
ACCESS = MANIFESTS / "base/controller/access.yaml"
ROLES = (
    "Role tokenward-controller",
    "ClusterRole tokenward-controller",
    "ClusterRole tokenward-tenant",
)
CERT_MANAGER_ROLE = "ClusterRole tokenward-tenant-cert-manager"
NETWORK_POLICY_ROLE = "ClusterRole tokenward-tenant-network-policy"

# A right: the role that gives it, the API group, the resource, the verb.
Right = tuple[str, str, str, str]


def granted(roles: Collection[str] = ROLES) -> set[Right]:
    found = set()
    for one in yaml.safe_load_all(ACCESS.read_text("utf-8")):
        role = f"{one['kind']} {one['metadata']['name']}"
        if role in roles:
            for rule in one["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        found |= {(role, group, resource, verb) for verb in rule["verbs"]}
    return found


def normalised(rights: Iterable[Right]) -> Iterator[Right]:
    """As they are granted: a right in all namespaces holds in the controller's own too."""
    for role, group, resource, verb in rights:
        if resource in ("events", "namespaces") or group == "apiextensions.k8s.io":
            role = ROLES[1]
        yield role, group, resource, verb
