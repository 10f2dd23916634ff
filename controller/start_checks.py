"""What has to be so before the controller starts: the schemas, and what the API server serves."""

from controller.api import kinds
from controller.api.kinds import Kind
from controller.api.objects import Key, annotations
from controller.api.v1alpha1 import SCHEMA, SCHEMA_ANNOTATION
from controller.cluster import Cluster


class OldSchema(Exception):
    """A CustomResourceDefinition is missing or older than this controller."""


async def check_schemas(cluster: Cluster) -> None:
    """Raises OldSchema: an old schema would drop new members without a word."""
    for plural in (kinds.MCP_AUTH_SERVER.plural, kinds.MCP_SERVER_AUTH.plural):
        name = f"{plural}.tokenward.dev"
        stored = await cluster.get(kinds.CRD, Key("", name))
        version = annotations(stored).get(SCHEMA_ANNOTATION, "") if stored is not None else ""
        if not version.isdecimal() or int(version) < SCHEMA:
            raise OldSchema(
                f"CustomResourceDefinition {name} is missing or older; apply manifests/crds"
            )


async def pod_certificates_of(cluster: Cluster) -> Kind | None:
    """The version of PodCertificateRequest that this API server serves, None where it has none."""
    for kind in (kinds.POD_CERTIFICATE_REQUEST, kinds.POD_CERTIFICATE_REQUEST_BETA):
        if await cluster.serves(kind):
            return kind
    return None
