"""The kinds of objects that the controller reads or writes, and their paths in the API."""

from dataclasses import dataclass, field
from typing import Final

from controller.api.objects import Object
from controller.api.v1alpha1 import API_VERSION


@dataclass(frozen=True)
class Kind:
    """A kind, as the API server names it. `plural` is the last part of its path.

    `metadata_only`: lists and watches leave out everything but the metadata.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    metadata_only: bool = field(default=False, compare=False)

    @property
    def prefix(self) -> str:
        group = "apis" if "/" in self.api_version else "api"
        return f"/{group}/{self.api_version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of a collection, or of one object. Names are of the API's own charset."""
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.prefix}{inside}/{self.plural}" + (f"/{name}" if name else "")


_REGISTRATION: Final = "admissionregistration.k8s.io/v1"

MCP_AUTH_SERVER: Final = Kind(API_VERSION, "MCPAuthServer", "mcpauthservers")
MCP_SERVER_AUTH: Final = Kind(API_VERSION, "MCPServerAuth", "mcpserverauths")
NAMESPACE: Final = Kind("v1", "Namespace", "namespaces", namespaced=False)
POD: Final = Kind("v1", "Pod", "pods")
SECRET: Final = Kind("v1", "Secret", "secrets")
POD_METADATA: Final = Kind("v1", "Pod", "pods", metadata_only=True)
# That a credential is there is kept in memory; the credential is not.
SECRET_METADATA: Final = Kind("v1", "Secret", "secrets", metadata_only=True)
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
SERVICE: Final = Kind("v1", "Service", "services")
SERVICE_ACCOUNT: Final = Kind("v1", "ServiceAccount", "serviceaccounts")
VOLUME_CLAIM: Final = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT: Final = Kind("v1", "Event", "events")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
JOB: Final = Kind("batch/v1", "Job", "jobs")
NETWORK_POLICY: Final = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
CRD: Final = Kind(
    "apiextensions.k8s.io/v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
MUTATING_WEBHOOK: Final = Kind(
    _REGISTRATION, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
)
ADMISSION_POLICY: Final = Kind(
    _REGISTRATION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False
)
ADMISSION_BINDING: Final = Kind(
    _REGISTRATION,
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    namespaced=False,
)
CERTIFICATE: Final = Kind("cert-manager.io/v1", "Certificate", "certificates")
POD_CERTIFICATE_REQUEST: Final = Kind(
    "certificates.k8s.io/v1", "PodCertificateRequest", "podcertificaterequests"
)
# The same before Kubernetes 1.37, behind a feature gate.
POD_CERTIFICATE_REQUEST_BETA: Final = Kind(
    "certificates.k8s.io/v1beta1", "PodCertificateRequest", "podcertificaterequests"
)

KINDS: Final = {
    (one.api_version, one.kind): one
    for one in (
        MCP_AUTH_SERVER, MCP_SERVER_AUTH, NAMESPACE, POD, SECRET, CONFIG_MAP, SERVICE,
        SERVICE_ACCOUNT, VOLUME_CLAIM, EVENT, DEPLOYMENT, JOB, NETWORK_POLICY, DISRUPTION_BUDGET,
        LEASE, CRD, MUTATING_WEBHOOK, ADMISSION_POLICY, ADMISSION_BINDING, CERTIFICATE,
        POD_CERTIFICATE_REQUEST, POD_CERTIFICATE_REQUEST_BETA,
    )
}  # fmt: skip


def kind_of(obj: Object) -> Kind:
    """The kind of a whole object. Raises KeyError for one that is none of ours."""
    return KINDS[str(obj["apiVersion"]), str(obj["kind"])]
