"""Policies that tests make for themselves."""

from tests.cluster.cluster import Cluster, Object, narrowed

_API_VERSION = "admissionregistration.k8s.io/v1"
_PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}


def refuse_pods_unless(cluster: Cluster, name: str, expression: str) -> None:
    """Bind a policy with this CEL expression to the namespace of the test."""
    policy = {
        "matchConstraints": {"resourceRules": [_PODS]},
        "validations": [{"expression": expression}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    specs = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    for kind, spec in specs.items():
        made: Object = {"apiVersion": _API_VERSION, "kind": kind, "metadata": {"name": name}}
        cluster.apply_everywhere(narrowed(made | {"spec": spec}, cluster))
