"""The API server's audit log: what a ServiceAccount asked, as rights."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "TOKENWARD_TEST_AUDIT_LOG"
_CREDENTIAL = "authentication.kubernetes.io/credential-id"


@dataclass(frozen=True)
class Request:
    """A request that an API server answered; `resource` has its subresource, as RBAC names it."""

    group: str
    resource: str
    verb: str
    namespace: str
    name: str
    code: int
    credential: str  # the id of the token
    at: str  # RFC 3339, with microseconds

    @property
    def writes(self) -> bool:
        return self.verb in ("create", "update", "patch", "delete", "deletecollection")


def log_file() -> Path | None:
    """None for an API server that writes none, or not here."""
    named = os.environ.get(VARIABLE)  # noqa: TID251 - how the log is named
    return Path(named) if named else None


def requests_of(file: Path, user: str) -> Iterator[Request]:
    """Requests of a ServiceAccount `namespace/name`, oldest first; those under way are left out."""
    name = f"system:serviceaccount:{user.replace('/', ':')}"
    for line in file.read_text("utf-8").splitlines():
        event = json.loads(line)
        about = event.get("objectRef")
        if event["user"].get("username") != name or about is None:
            continue
        if event["stage"] not in ("ResponseComplete", "ResponseStarted"):
            continue
        yield _request(event, about)


def _request(event: dict[str, Any], about: dict[str, Any]) -> Request:
    resource = about["resource"]
    if about.get("subresource"):
        resource += f"/{about['subresource']}"
    credentials = event["user"].get("extra", {}).get(_CREDENTIAL, [""])
    return Request(
        about.get("apiGroup", ""),
        resource,
        event["verb"],
        about.get("namespace", ""),
        about.get("name", ""),
        event["responseStatus"]["code"],
        credentials[0],
        event["stageTimestamp"],
    )
