"""Writes the file by which a client finds the API server and proves who it is."""

import json
import os
from base64 import b64encode
from pathlib import Path

from tests.cluster.control_plane.certificates import KeyPair


def write_kubeconfig(path: Path, server: str, ca: Path, client: KeyPair) -> Path:
    """A kubeconfig with all certificates inside, so that it works from any folder (mode 0600)."""
    name = path.stem
    found = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "tokenward",
                "cluster": {"server": server, "certificate-authority-data": _encoded(ca)},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _encoded(client.certificate),
                    "client-key-data": _encoded(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": "tokenward", "user": name}}],
        "current-context": name,
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(found, file, indent=2)  # JSON is YAML
    return path


def _encoded(path: Path) -> str:
    return b64encode(path.read_bytes()).decode("ascii")
