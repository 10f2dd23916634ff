"""Evaluates admission policies and match conditions as the API server would, with a CEL of our own
process: enough of Kubernetes' environment for the expressions in manifests/.
"""

from dataclasses import dataclass, field
from typing import Any

from celpy import celtypes
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError

from tests.manifests.compiled_cel import program


@dataclass
class Request:
    """What is being admitted, and where."""

    object: dict[str, Any]
    operation: str = "CREATE"
    namespace: str = "mcp-servers"
    namespace_labels: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] | None = None
    old: dict[str, Any] | None = None
    user: str = "system:serviceaccount:mcp-servers:deployer"

    def _bound(self) -> dict[str, Any]:
        request = {
            "operation": self.operation,
            "namespace": self.namespace,
            "userInfo": {"username": self.user},
        }
        space = {"metadata": {"name": self.namespace, "labels": self.namespace_labels}}
        return {
            "object": json_to_cel(self.object),
            "oldObject": json_to_cel(self.old),
            "request": json_to_cel(request),
            "namespaceObject": json_to_cel(space),
            "params": json_to_cel(self.params),
        }

    def holds(self, expression: str) -> bool:
        """Raises where the API server would: on a member that is not there."""
        return bool(program(expression).evaluate(self._bound()))

    def refusals(self, policy: dict[str, Any]) -> list[str]:
        """The messages of the validations that fail; an expression that errs is one of them."""
        spec, bound = policy["spec"], self._bound()
        conditions = spec.get("matchConditions", [])
        if not all(self.holds(condition["expression"]) for condition in conditions):
            return []
        variables = bound["variables"] = celtypes.MapType()
        failed = []
        try:
            for variable in spec.get("variables", []):
                value = program(variable["expression"]).evaluate(bound)
                variables[celtypes.StringType(variable["name"])] = value
        except CELEvalError as erring:
            return [f"error: {erring}"]
        for validation in spec["validations"]:
            try:
                if not program(validation["expression"]).evaluate(bound):
                    failed.append(validation["message"])
            except CELEvalError as erring:
                failed.append(f"error: {validation['message']}: {erring}")
        return failed
