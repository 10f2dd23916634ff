"""The RFC 9728 document of the MCP server, and the challenge that points MCP clients at it."""

import json
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


class ProtectedResource(NamedTuple):
    """The MCP server as its clients know it; without a `resource` there is no document.

    `offline_access` concerns the client and the authserver alone, so it is named in neither
    document nor challenge.
    """

    resource: str | None
    issuer: str | None
    scopes: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the document is served: the plain path, and the resource's path inserted."""
        if self.resource is None:
            return ()
        return (WELL_KNOWN, _inserted(self.resource))

    @property
    def document(self) -> bytes:
        members = {
            "resource": self.resource,
            "authorization_servers": [self.issuer],
            "bearer_methods_supported": ["header"],
        }
        if scopes := _of_the_resource(self.scopes):
            members["scopes_supported"] = scopes
        return json.dumps(members).encode()

    def challenge(
        self, error: str | None = None, description: str = "", scope: str | None = None
    ) -> str:
        """A `WWW-Authenticate` value; the Bearer scheme stands alone, clients read no second.

        `scope` is what the client has to ask for, None for what the configuration says.
        """
        parameters = []
        if error is not None:
            parameters += [f'error="{error}"', f'error_description="{description}"']
        if self.metadata_url is not None:
            parameters.append(f'resource_metadata="{self.metadata_url}"')
        scopes = _of_the_resource(self.scopes if scope is None else scope.split())
        if scopes:
            parameters.append(f'scope="{" ".join(scopes)}"')
        return f"Bearer {', '.join(parameters)}".rstrip()

    @property
    def metadata_url(self) -> str | None:
        """Where clients find the document (RFC 9728 section 3.1)."""
        if self.resource is None:
            return None
        parts = urlsplit(self.resource)
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{parts.netloc}{_inserted(self.resource)}{query}"


def _of_the_resource(scopes: Iterable[str]) -> list[str]:
    """Without the one that no resource requires (MCP 2026-07-28, refresh tokens)."""
    return [scope for scope in scopes if scope != "offline_access"]


def _inserted(resource: str) -> str:
    """RFC 9728 section 3.1: a slash that directly follows the host is left out."""
    path = urlsplit(resource).path
    return WELL_KNOWN + ("" if path == "/" else path)
