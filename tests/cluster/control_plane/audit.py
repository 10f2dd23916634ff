"""What the API server writes down of requests: those of ServiceAccounts, without their content."""

import json
from pathlib import Path
from typing import Any, Final

FILE: Final = "audit.log"

# The controllers of kube-system ask a hundred times a second, and nobody here wants to know.
_POLICY: Final[dict[str, Any]] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


def options(folder: Path) -> dict[str, Path]:
    """The API server's options; its log is `folder/audit.log`, one event a line."""
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(_POLICY), "utf-8")
    return {"audit-policy-file": policy, "audit-log-path": folder / FILE}
