"""A web site with client ID metadata documents."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.web_site import WebSite, web_site
from tests.support.deployment import CALLBACK, Deployment, deployed

PATH = "/oauth/client.json"


@asynccontextmanager
async def both(folder: Path, **changes: Any) -> AsyncIterator[tuple[Deployment, WebSite]]:
    """An authserver on loopback, and a web site that it may fetch documents from."""
    async with web_site() as site, deployed(folder, **changes) as world:
        yield world, site


def document(described: str, /, **changes: object) -> dict[str, Any]:
    found = {
        "client_id": described,
        "client_name": "Document client",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    }
    return {name: value for name, value in (found | changes).items() if value is not None}
