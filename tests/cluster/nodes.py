"""What tests of started pods need: a node's images, a credential, and what containers did."""

import json
import os
from base64 import b64encode
from typing import Any

from demo.pki import CertificateAuthority
from tests.cluster.cluster import Cluster, Object, Refused, eventually
from tests.cluster.control_plane.images import BUSYBOX
from tests.webhook.pods import SIDECAR, pod

# `python -m tests.cluster.control_plane --node` says by which digest its node knows the image.
SIDECAR_IMAGE = os.environ.get("TOKENWARD_TEST_SIDECAR_IMAGE", "")  # noqa: TID251 - as above

# Without a JWT the sidecar answers 401; busybox prints the status line and takes it for a failure.
ASK = (
    "wget -S -O- --header 'X-Tokenward: 1' --header 'Content-Type: application/json' "
    "--post-data '{}' $TOKENWARD_URL/v1/token 2>&1 || true"
)


def started(name: str, script: str, **spec: Any) -> Object:
    """An opted-in pod whose only container of its own runs a shell script, once."""
    app = {"image": BUSYBOX, "command": ["sh", "-c", script]}
    made = pod(container=app, restartPolicy="Never", terminationGracePeriodSeconds=1, **spec)
    made["metadata"]["name"] = name
    return made


def give_credential(
    cluster: Cluster, server: str, authority: CertificateAuthority, named: str = ""
) -> None:
    """Put a new certificate of that MCP server, or of the one `named`, into its Secret."""
    spiffe_id = f"spiffe://example.org/ns/{cluster.namespace}/mcpserver/{named or server}"
    issued = authority.issue_svid(spiffe_id)
    data = {"tls.crt": issued.chain, "tls.key": issued.key_pem}
    secret: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": f"{server}-tokenward"},
        "data": {key: b64encode(value).decode("ascii") for key, value in data.items()},
    }
    cluster.inside("apply", "-f", "-", given=secret)


def container_state(made: Object, name: str) -> Object:
    """The status of a container, native sidecars among them; empty before there is one."""
    status = made.get("status", {})
    found = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((one for one in found if one["name"] == name), {})


def ended(cluster: Cluster, name: str) -> Object:
    """The pod, once it and its sidecar have ended."""

    def over(found: Object | None) -> bool:
        if found is None or found["status"]["phase"] not in ("Succeeded", "Failed"):
            return False
        return "terminated" in container_state(found, SIDECAR)["state"]

    found = eventually(lambda: cluster.get("pod", name), over)
    assert found is not None
    return found


def log_of(cluster: Cluster, name: str, container: str) -> str:
    """What the container has written; empty while it has not started."""
    try:
        return cluster.inside("logs", name, "-c", container)
    except Refused:
        return ""


def events_of(log: str) -> list[Object]:
    """The lines of a log of ours that are JSON."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]
