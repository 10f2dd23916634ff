"""What the command line shows of exchanged tokens: for whom, for what and until when."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.exchanging import Exchanging, exchanging
from tests.support.workloads import NOTES_SERVER, audited
from tests.tokenward.running import on

BOTH = "orders billing https://orders.example.com/api"


async def connections(r: Exchanging, *selectors: str) -> list[dict[str, Any]]:
    listed = await on(r.original, "connections", "list", *selectors, "--output", "json")
    return list(listed.json["connections"])


async def rights(r: Exchanging, *selectors: str) -> dict[str, dict[str, Any]]:
    listed = await on(r.original, "who-can", *selectors, "--output", "json")
    return {right["upstream"]: right for right in listed.json["rights"]}


async def test_made_tokens_are_listed_behind_the_connection_that_they_live_on(
    tmp_path: Path,
) -> None:
    async with exchanging(tmp_path) as r:
        assert [item["upstream"] for item in await connections(r)] == ["acme"]
        made = [
            await r.token(),
            await r.token(target_audience="billing", scope="orders.read"),
        ]
        connection, *tokens = await connections(r)
        assert (connection["made_of"], connection["audience"], connection["expires"]) == ("",) * 3
        assert {(item["audience"], item["scope"]) for item in tokens} == {
            (BOTH, "orders.read orders.write"),
            ("billing", "orders.read"),
        }
        for item in tokens:
            assert (item["upstream"], item["made_of"]) == ("orders", "acme")
            assert (item["server"], item["state"]) == (NOTES_SERVER, "live")
            assert item["user"] == connection["user"]
            assert item["expires"] > "20"
        table = (await on(r.original, "connections", "list")).out
        assert "orders.read" in table
        assert not [token for token in (*made, "access-1") if token in table]
        # Disconnecting is about connections alone.
        dry = await on(
            r.original, "connections", "disconnect", "--all", "--dry-run", "--reason", "x",
            "--output", "json",
        )  # fmt: skip
        assert dry.json["connections"] == 1


async def test_selectors_find_made_tokens(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        await r.token()
        for selectors, found in {
            ("--upstream", "orders"): ["orders"],
            ("--upstream", "acme"): ["acme", "orders"],
            ("--client", r.user.client_id): ["acme", "orders"],
            ("--server", NOTES_SERVER): ["acme", "orders"],
        }.items():
            assert [item["upstream"] for item in await connections(r, *selectors)] == found


async def test_a_token_that_no_key_opens_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        await r.token()
        await r.sql("UPDATE exchanged_tokens SET sealed_tokens = X'00'")
        assert [item["state"] for item in await connections(r)] == ["live", "unreadable"]


async def test_who_can_names_what_may_be_made_for_a_server(tmp_path: Path) -> None:
    async with exchanging(tmp_path) as r:
        right = (await rights(r))["orders"]
        assert (right["made_of"], right["audience"]) == ("acme", BOTH)
        assert right["scope"] == "orders.read orders.write"
        assert (right["server"], right["sessions"], right["state"]) == (NOTES_SERVER, 1, "can")
        assert list(await rights(r, "--upstream", "orders")) == ["orders"]
        assert list(await rights(r, "--upstream", "acme")) == ["acme"]
        await r.sql("UPDATE sessions SET upstreams = 'acme'")
        assert list(await rights(r)) == ["acme"], "no session's consent page named it"


async def test_who_can_says_where_only_made_tokens_are_released(tmp_path: Path) -> None:
    async with exchanging(tmp_path, exchange_only=True) as r:
        configuration = yaml.safe_load((tmp_path / "authserver.yaml").read_text())
        assert configuration["upstreams"][0]["exchangeOnly"]
        found = await rights(r)
        assert (found["acme"]["state"], found["orders"]["state"]) == ("exchange_only", "can")


async def test_the_audit_trail_says_for_whom_and_for_what_a_token_was_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with exchanging(tmp_path) as r:
        with audited(caplog) as trail:
            made = await r.token(target_audience="billing", scope="orders.read")
            await r.token()
            await r.token(audience="acme")
        first, second, plain = trail.releases
        assert (first["audience"], first["scope"]) == ("billing", "orders.read")
        assert (second["audience"], second["scope"]) == (BOTH, "orders.read orders.write")
        assert not {"audience", "scope"} & plain.keys()
        assert made not in str(first)
