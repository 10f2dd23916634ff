"""Promise 1: a stored token is released to its owner and to nobody else; missing data denies."""

from pathlib import Path

from tests.authserver.deployment import deployed


async def test_the_owner_gets_the_users_upstream_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        answer = await world.exchange("mcp-servers/notes", alice.access_token)
        assert answer.status == 200, answer.text
        assert answer.json()["upstream"] == "acme"
