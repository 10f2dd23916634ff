"""A scope that an MCP server requires since yesterday reaches clients that never ask for it."""

from pathlib import Path

import pytest

from authserver.config.loader import load
from chassis.process import ConfigurationError
from tests.support.deployment import NOTES, Deployment, deployed
from tests.support.forged_tokens import claims_of
from tests.support.workloads import reconfigure

NOW_REQUIRED = ["mcp", "notes:write"]


def _resource(**members: object) -> dict[str, object]:
    workload = {"namespace": "mcp-servers", "name": "notes"}
    return {"resource": NOTES, "workload": workload, "upstreams": ["acme"], **members}


async def _require(world: Deployment, **members: object) -> None:
    reconfigure(world, resources=[_resource(**members)])
    await world.server.reload(load(world.folder / "authserver.yaml"))


async def test_a_session_without_the_new_scope_is_sent_to_sign_in_and_keeps_its_refresh_token(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp")
        await _require(world, scopes=NOW_REQUIRED, requiredScopes=NOW_REQUIRED)
        for _ in range(2):
            refused = await world.refresh(alice.client_id, alice.refresh_token)
            assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
        # Taken back, the requirement has cost nobody anything.
        await _require(world, scopes=NOW_REQUIRED)
        answer = await world.refresh(alice.client_id, alice.refresh_token)
        assert (answer.status, answer.json()["scope"]) == (200, "mcp")


async def test_a_sign_in_gets_what_is_required_whatever_its_client_asks_for(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await _require(world, scopes=[*NOW_REQUIRED, "more"], requiredScopes=NOW_REQUIRED)
        alice = await world.signed_in("alice", scope="mcp")
        assert claims_of(alice.access_token)["scope"] == "mcp notes:write"
        answer = await world.refresh(alice.client_id, alice.refresh_token)
        assert (answer.status, answer.json()["scope"]) == (200, "mcp notes:write")
        # What is not required is granted to those who ask for it.
        bob = await world.signed_in("bob", scope="more mcp")
        assert claims_of(bob.access_token)["scope"] == "more mcp notes:write"


async def test_a_resource_requires_only_scopes_that_it_has(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        with pytest.raises(ConfigurationError) as refused:
            await _require(world, scopes=["mcp"], requiredScopes=NOW_REQUIRED)
        assert "notes:write is not in scopes" in refused.value.faults[0].problem
