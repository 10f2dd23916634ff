"""Names and URLs of manifests/overlays/demo."""

from dataclasses import dataclass
from typing import Final

NAMESPACE: Final = "tokenward-demo"
SERVERS_NAMESPACE: Final = "mcp-servers"
SYSTEM_NAMESPACE: Final = "tokenward-system"

_DOMAIN: Final = "svc.cluster.local"


@dataclass(frozen=True)
class InClusterServer:
    """An MCP server behind the TLS router."""

    name: str

    @property
    def host(self) -> str:
        return f"{self.name}.{SERVERS_NAMESPACE}.{_DOMAIN}"

    @property
    def resource(self) -> str:
        return f"https://{self.host}/mcp"

    @property
    def resource_metadata(self) -> str:
        return f"https://{self.host}/.well-known/oauth-protected-resource/mcp"


@dataclass(frozen=True)
class Places:
    """Where everything of the overlay is; each URL leads to the TLS router."""

    issuer: str = f"https://auth.{NAMESPACE}.{_DOMAIN}"
    upstream: str = f"https://acme.{NAMESPACE}.{_DOMAIN}"
    # One that has tokens handed out, and one behind the gateway that knows nothing of OAuth.
    servers: tuple[InClusterServer, InClusterServer] = (
        InClusterServer("notes"),
        InClusterServer("plain"),
    )

    @property
    def metadata(self) -> str:
        return f"{self.issuer}/.well-known/oauth-authorization-server"

    @property
    def hosts(self) -> list[str]:
        """Every host name that the router's certificate needs."""
        urls = (self.issuer, self.upstream, *(one.resource for one in self.servers))
        return [url.split("/")[2] for url in urls]
