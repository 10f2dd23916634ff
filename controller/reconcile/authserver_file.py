"""The authserver's configuration file, made of an MCPAuthServer."""

from collections.abc import Mapping
from typing import Any, Final

import yaml

from controller.api.auth_server import AuthServer
from controller.api.objects import path
from controller.reconcile.keys import EncryptionKeys, SigningKeys

CONFIG_FILE: Final = "authserver.yaml"
CONFIG_DIR: Final = "/etc/tokenward"
MOUNTS: Final = "/var/run/tokenward"
INTERNAL_DIR: Final = f"{MOUNTS}/internal"
AUTHORITIES_DIR: Final = f"{MOUNTS}/workload-authorities"
ENCRYPTION_DIR: Final = f"{MOUNTS}/encryption-keys"
SIGNING_DIR: Final = f"{MOUNTS}/signing-keys"
UPSTREAMS_DIR: Final = f"{MOUNTS}/upstreams"
POSTGRESQL_DIR: Final = f"{MOUNTS}/postgresql"
RESOURCES_DIR: Final = f"{MOUNTS}/resources"
DATABASE_DIR: Final = "/var/lib/tokenward"

PUBLIC_PORT: Final = 8080
INTERNAL_PORT: Final = 8443
OPS_PORT: Final = 9090

# What the authserver takes over without a restart; everything else restarts its pods.
RELOADED: Final = frozenset({"encryptionKeys", "signingKeys", "upstreams", "allowedWorkloads"})

_REFERENCES: Final = {"clientSecretRef", "caBundleRef"}
_WORD_FOR_WORD: Final = ("lifetimes", "limits", "clients", "pages", "logLevel")


def content(
    auth_server: AuthServer, encryption: EncryptionKeys, signing: SigningKeys
) -> dict[str, Any]:
    """The file's members. What the object names by reference is a path here."""
    made: dict[str, Any] = {
        "issuer": auth_server.issuer,
        "trustDomain": auth_server.trust_domain,
        "listeners": _listeners(auth_server),
        "storage": _storage(auth_server),
        "encryptionKeys": [
            {"id": one, "file": f"{ENCRYPTION_DIR}/{one}"} for one in encryption.sealing_first
        ],
        "signingKeys": [
            {"file": f"{SIGNING_DIR}/{one.pop('file')}", "algorithm": "ES256", **one}
            for one in signing.entries()
        ],
        "upstreams": [_upstream(one) for one in auth_server.upstreams],
        "resourcesDir": RESOURCES_DIR,
        # Whom the map names is served, and nobody else: the tenants have decided.
        "allowedWorkloads": {"namespaces": ["*"], "names": ["*"]},
    }
    configuration = path(auth_server.spec, "configuration")
    for member in _WORD_FOR_WORD:
        value = path(configuration, member) if isinstance(configuration, Mapping) else None
        if value:
            made[member] = value
    return made


def text(members: Mapping[str, Any]) -> str:
    """The file. Members are sorted, so that equal settings are equal texts."""
    dumped: str = yaml.safe_dump(_plain(members), sort_keys=True, width=100)
    return dumped


def _plain(value: Any) -> Any:
    """Without shared parts, which YAML would write as aliases."""
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _listeners(auth_server: AuthServer) -> dict[str, Any]:
    public: dict[str, Any] = {"host": "::", "port": PUBLIC_PORT, "behindTLSProxy": True}
    proxies = path(auth_server.spec, "configuration", "trustedProxies")
    if proxies:
        public["trustedProxies"] = proxies
    return {
        "public": public,
        "internal": {
            "host": "::",
            "port": INTERNAL_PORT,
            "certFile": f"{INTERNAL_DIR}/tls.crt",
            "keyFile": f"{INTERNAL_DIR}/tls.key",
            "clientCAFile": f"{AUTHORITIES_DIR}/ca.crt",
        },
        "ops": {"host": "::", "port": OPS_PORT},
    }


def _storage(auth_server: AuthServer) -> dict[str, Any]:
    postgresql = auth_server.postgresql
    if postgresql is None:
        return {"url": f"sqlite://{DATABASE_DIR}/tokenward.db"}
    url = str(postgresql.get("url", ""))
    if postgresql.get("caConfigMapRef"):
        url += ("&" if "?" in url else "?") + f"sslrootcert={POSTGRESQL_DIR}/ca.crt"
    made: dict[str, Any] = {"url": url, "replicas": auth_server.replicas}
    if postgresql.get("passwordSecretRef"):
        made["passwordFile"] = f"{POSTGRESQL_DIR}/password"
    return made


def _upstream(given: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in given.items() if name not in _REFERENCES}
    if isinstance(secret := given.get("clientSecretRef"), Mapping):
        made["clientSecretFile"] = f"{UPSTREAMS_DIR}/{secret_path(secret)}"
    if isinstance(bundle := given.get("caBundleRef"), Mapping):
        made["caFile"] = f"{UPSTREAMS_DIR}/{config_map_path(bundle)}"
    return made


def secret_path(reference: Mapping[str, Any]) -> str:
    return f"secrets/{reference.get('name')}/{reference.get('key')}"


def config_map_path(reference: Mapping[str, Any]) -> str:
    return f"configmaps/{reference.get('name')}/{reference.get('key')}"
