"""Pure: the volumes that an injected pod gets, and what its credential comes from."""

from typing import Any, Final

from chassis.spiffe_id import Workload
from webhook.annotations import AUTHSERVER_CA
from webhook.settings import CsiIdentity, PodCertificateIdentity, SecretIdentity, Settings

CREDENTIAL_VOLUME: Final = "tokenward-credential"
CA_VOLUME: Final = "tokenward-authserver-ca"
NO_API_TOKEN_VOLUME: Final = "tokenward-no-api-token"  # noqa: S105 - a name
VOLUMES: Final = (CREDENTIAL_VOLUME, CA_VOLUME, NO_API_TOKEN_VOLUME)

CA_FILE: Final = "ca.pem"

# The sidecar runs as no user that owns the files, and only the sidecar mounts them.
_WORLD_READABLE: Final = 0o444

_KEY_PAIR: Final = [{"key": name, "path": name} for name in ("tls.crt", "tls.key")]
_CA_FIELD: Final = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{AUTHSERVER_CA}']"}

# The volumes that every injected pod has; the one of the credential comes before them.
SHARED_VOLUMES: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": CA_VOLUME,
        "downwardAPI": {
            "items": [{"path": CA_FILE, "fieldRef": _CA_FIELD}],
            "defaultMode": _WORLD_READABLE,
        },
    },
    {"name": NO_API_TOKEN_VOLUME, "emptyDir": {}},
)


def secret_name(server: str) -> str:
    return f"{server}-tokenward"


def credential_volume(workload: Workload, settings: Settings) -> dict[str, Any]:
    """The volume with the workload's key and certificate."""
    return {"name": CREDENTIAL_VOLUME, **_credential_source(workload, settings)}


def _credential_source(workload: Workload, settings: Settings) -> dict[str, Any]:
    match settings.identity:
        case SecretIdentity():
            return {
                "secret": {
                    "secretName": secret_name(workload.name),
                    "items": _KEY_PAIR,
                    "defaultMode": _WORLD_READABLE,
                }
            }
        case PodCertificateIdentity() as identity:
            certificate = {
                "signerName": identity.signer_name,
                "keyType": "ECDSAP256",
                "maxExpirationSeconds": identity.max_expiration_seconds,
                "credentialBundlePath": "credential-bundle.pem",
            }
            return {
                "projected": {
                    "sources": [{"podCertificate": certificate}],
                    "defaultMode": _WORLD_READABLE,
                }
            }
        case CsiIdentity() as identity:
            attributes = {
                key: _filled(value, workload, settings.trust_domain)
                for key, value in identity.attributes.items()
            }
            source: dict[str, Any] = {"driver": identity.driver, "readOnly": True}
            return {"csi": source | ({"volumeAttributes": attributes} if attributes else {})}


def _filled(template: str, workload: Workload, trust_domain: str) -> str:
    for name, value in (
        ("{namespace}", workload.namespace),
        ("{server}", workload.name),
        ("{spiffeId}", workload.spiffe_id(trust_domain)),
    ):
        template = template.replace(name, value)
    return template
