"""Policies that tests make for themselves."""

from typing import Any

from tests.cluster.cluster import Cluster, Object, narrowed

_API_VERSION = "admissionregistration.k8s.io/v1"
_PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}


def refuse_pods_unless(cluster: Cluster, name: str, expression: str) -> None:
    """Bind a policy with this CEL expression to the namespace of the test."""
    for made in _policy_and_binding(name, {"validations": [{"expression": expression}]}, {}):
        cluster.apply_everywhere(narrowed(made, cluster))


def keep_parameters_followed(cluster: Cluster) -> None:
    """Bind a policy with a ConfigMap as its parameter to no namespace, and leave it for good.

    An API server that saw the last such policy go follows no ConfigMap any more
    (kubernetes#130887); see docs/decisions/guard-policy.md, under Costs.
    """
    name = "tokenward-tests-keep-parameters"
    policy = {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "true"}],
    }
    binding = {
        "paramRef": {"name": name, "namespace": "default", "parameterNotFoundAction": "Allow"},
        "matchResources": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}
        },
    }
    for made in _policy_and_binding(name, policy, binding):
        cluster.apply_everywhere(made)


def _policy_and_binding(
    name: str, policy: dict[str, Any], binding: dict[str, Any]
) -> tuple[Object, Object]:
    rules = {"matchConstraints": {"resourceRules": [_PODS]}}
    bound = {"policyName": name, "validationActions": ["Deny"]}
    return (
        _object("ValidatingAdmissionPolicy", name, policy | rules),
        _object("ValidatingAdmissionPolicyBinding", name, binding | bound),
    )


def _object(kind: str, name: str, spec: dict[str, Any]) -> Object:
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
