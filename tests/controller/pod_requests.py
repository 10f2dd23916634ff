"""An injected pod and its PodCertificateRequest, in the API server in memory."""

from typing import Any

from controller.api.kinds import POD, POD_CERTIFICATE_REQUEST
from controller.api.objects import Key
from tests.controller.running import SIDECAR, Site
from tests.controller.test_pod_certificate_signer import pod, request

REQUEST = Key("mcp-servers", "req")


def put_pod(site: Site, **changes: Any) -> None:
    """As the webhook makes it, with the sidecar of the running configuration."""
    made = pod()
    made["apiVersion"], made["kind"] = "v1", POD.kind
    made["metadata"].setdefault("labels", {})["tokenward.dev/injected"] = "true"
    sidecar = made["spec"]["initContainers"][0]
    sidecar["image"] = SIDECAR
    sidecar["env"][0]["value"] = "spiffe://cluster.local/ns/mcp-servers/mcpserver/notes"
    sidecar.update(changes)
    site.api.put(made)


def put_request(site: Site) -> None:
    """The pod, and its kubelet's request."""
    put_pod(site)
    site.api.put(
        {
            "apiVersion": POD_CERTIFICATE_REQUEST.api_version,
            "kind": POD_CERTIFICATE_REQUEST.kind,
            **request(),
        }
    )


def answer(site: Site) -> tuple[str, str] | None:
    """Type and reason of the answer, None while there is none."""
    status = site.api.found(POD_CERTIFICATE_REQUEST, REQUEST).get("status")
    if status is None:
        return None
    (condition,) = status["conditions"]
    return condition["type"], condition["reason"]
