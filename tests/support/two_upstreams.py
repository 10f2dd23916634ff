"""A resource with two upstreams: the first names the user, the second is linked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from demo.upstream import FakeUpstream
from tests.support.deployment import NOTES, Deployment


@asynccontextmanager
async def two_upstreams() -> AsyncIterator[tuple[FakeUpstream, FakeUpstream]]:
    first, second = (
        FakeUpstream(client_id="tokenward", client_secret="upstream secret canary", redirect_uri="")
        for _ in range(2)
    )
    async with first.serve(), second.serve():
        yield first, second


def configured(first: FakeUpstream, second: FakeUpstream) -> dict[str, Any]:
    upstreams = [
        {
            "name": name,
            "type": "oidc",
            "issuer": upstream.issuer,
            "clientId": "tokenward",
            "clientSecretFile": "upstream-secret",
        }
        for name, upstream in (("first", first), ("second", second))
    ]
    notes = {
        "resource": NOTES,
        "workload": {"namespace": "mcp-servers", "name": "notes"},
        "upstreams": ["first", "second"],
        "scopes": ["mcp"],
    }
    return {"upstreams": upstreams, "resources": [notes]}


def register_us(world: Deployment, first: FakeUpstream, second: FakeUpstream) -> None:
    first.redirect_uri = f"{world.issuer}/oauth/callback/first"
    second.redirect_uri = f"{world.issuer}/oauth/callback/second"
