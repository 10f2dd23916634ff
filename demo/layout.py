"""Where everything of one run stands: ports, URLs and files. Decides, and touches nothing."""

import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chassis.spiffe_id import Workload

HOST: Final = "127.0.0.1"
TRUST_DOMAIN: Final = "example.org"
NAMESPACE: Final = "demo"
UPSTREAM: Final = "acme"
CLIENT_ID: Final = "tokenward-demo"
SCOPE: Final = "mcp"

# Short enough to watch a token expire; the authserver calls it fresh for 80 % of this.
UPSTREAM_TOKEN_SECONDS: Final = 12

# Below the ports that outgoing connections are given, so that none of those takes a free one.
_PORTS: Final = range(20_000, 32_000)


@dataclass(frozen=True)
class Server:
    """One workload: an MCP server and its sidecar."""

    workload: Workload
    mcp_port: int
    sidecar_port: int
    ops_port: int
    credential: Path
    # Where a server listens that knows nothing of OAuth: the gateway is at `mcp_port` then.
    app_port: int | None = None

    @property
    def name(self) -> str:
        return self.workload.name

    @property
    def spiffe_id(self) -> str:
        return self.workload.spiffe_id(TRUST_DOMAIN)

    @property
    def resource(self) -> str:
        return _url(self.mcp_port, "/mcp")

    @property
    def resource_metadata(self) -> str:
        return _url(self.mcp_port, "/.well-known/oauth-protected-resource/mcp")

    @property
    def probe(self) -> str:
        """What answers 200 once the server does."""
        return self.resource_metadata if self.app_port is None else _url(self.mcp_port, "/healthz")

    @property
    def sidecar(self) -> str:
        return _url(self.sidecar_port)

    @property
    def ops(self) -> str:
        return _url(self.ops_port)


@dataclass(frozen=True)
class Layout:
    folder: Path
    upstream_port: int
    api_port: int
    public_port: int
    internal_port: int
    ops_port: int
    page_port: int
    servers: tuple[Server, ...]

    @property
    def upstream(self) -> str:
        return _url(self.upstream_port)

    @property
    def api(self) -> str:
        """The upstream's API over TLS, as Attach calls it."""
        return f"https://localhost:{self.api_port}"

    @property
    def api_credential(self) -> Path:
        return self.folder / "upstream-api"

    @property
    def api_ca(self) -> Path:
        return self.folder / "upstream-ca.pem"

    @property
    def issuer(self) -> str:
        return _url(self.public_port)

    @property
    def internal(self) -> str:
        return f"https://{HOST}:{self.internal_port}"

    @property
    def ops(self) -> str:
        return _url(self.ops_port)

    @property
    def callback(self) -> str:
        return f"{self.issuer}/oauth/callback/{UPSTREAM}"

    @property
    def client_secret(self) -> Path:
        return self.folder / "client-secret"

    @property
    def encryption_key(self) -> Path:
        return self.folder / "encryption-key"

    @property
    def signing_key(self) -> Path:
        return self.folder / "signing-key.pem"

    @property
    def server_credential(self) -> Path:
        return self.folder / "authserver"

    @property
    def server_ca(self) -> Path:
        return self.folder / "authserver-ca.pem"

    @property
    def workload_ca(self) -> Path:
        return self.folder / "workload-ca.pem"

    @property
    def config(self) -> Path:
        return self.folder / "authserver.yaml"

    @property
    def database(self) -> Path:
        return self.folder / "tokenward.db"


def plan(
    folder: Path,
    names: tuple[str, ...] = ("notes", "other"),
    behind_gateways: tuple[str, ...] = (),
) -> Layout:
    """A layout in `folder` on ports that are free now."""
    ports = _free_ports()
    return Layout(
        folder=folder,
        upstream_port=next(ports),
        api_port=next(ports),
        public_port=next(ports),
        internal_port=next(ports),
        ops_port=next(ports),
        page_port=next(ports),
        servers=tuple(
            Server(
                Workload(NAMESPACE, name),
                mcp_port=next(ports),
                sidecar_port=next(ports),
                ops_port=next(ports),
                credential=folder / f"sidecar-{name}",
                app_port=next(ports) if name in behind_gateways else None,
            )
            for name in (*names, *behind_gateways)
        ),
    )


def _free_ports() -> Iterator[int]:
    given: set[int] = set()
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        if port not in given and _is_free(port):
            given.add(port)
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def _url(port: int, path: str = "") -> str:
    return f"http://{HOST}:{port}{path}"
