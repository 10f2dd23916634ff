"""What a sidecar finds around it: variables it must not obey, a network it must not share.

Imported before `ssl`, so it does not import it.
"""

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

_SHED_PREFIXES: Final = ("PYTHON", "SSL_", "OPENSSL_", "SSLKEYLOGFILE")

# The kubelet's own listeners, its health check and its API, both at their default ports.
_KUBELET_PORTS: Final = {10248, 10250}
_TCP_LISTEN: Final = "0A"


def scrub_environment(environment: MutableMapping[str, str]) -> None:
    """Drop every variable by which others could redirect, weaken or record our TLS.

    The trust store is pointed at nothing: only the authserver's CA counts here.
    """
    for name in list(environment):
        upper = name.upper()
        if upper.startswith(_SHED_PREFIXES) or upper.endswith("_PROXY"):
            del environment[name]
    environment["SSL_CERT_FILE"] = os.devnull
    environment["SSL_CERT_DIR"] = "/nonexistent"


def uses_host_network(environment: Mapping[str, str], proc: Path = Path("/proc")) -> bool:
    """Whether this pod is known to share its node's network, and so its loopback with the node.

    The sign is a kubelet listening beside us: a native sidecar starts before the pod's own
    programs, and none of those takes both of the kubelet's ports. Outside Kubernetes, False.
    """
    if "KUBERNETES_SERVICE_HOST" not in environment:
        return False
    listening = _listening_ports(proc / "net/tcp") | _listening_ports(proc / "net/tcp6")
    return listening >= _KUBELET_PORTS


def _listening_ports(table: Path) -> set[int]:
    try:
        rows = [line.split() for line in table.read_text("ascii").splitlines()[1:]]
    except OSError:
        return set()
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _TCP_LISTEN}
