"""Listing, ending, disconnecting and blocking, with a running authserver beside the command."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.fakes.upstream import HostileUpstream
from tests.support.database_file import count, sql
from tests.support.deployment import NOTES, TASKS, Deployment, SignedIn, deployed
from tests.support.workloads import NOTES_SERVER, TASKS_SERVER, audited, line, reconfigure
from tests.tokenward.running import Ran, on, run, spawn

WHY = ("--reason", "ticket 4711")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deployed(tmp_path) as world:
        raw = yaml.safe_load((tmp_path / "authserver.yaml").read_text())
        acme = raw["upstreams"][0] | {"scopes": ["openid", "profile"]}  # it names the account
        await world.reconfigure(upstreams=[acme])
        yield world


async def users(world: Deployment) -> list[str]:
    """The pseudonyms, by what is listed."""
    listed = (await on(world, "sessions", "list", "--output", "json")).json["sessions"]
    return sorted({item["user"] for item in listed})


def one_line(ran: Ran, code: int = 1) -> str:
    assert (ran.code, ran.out) == (code, ""), ran
    [said] = ran.err.splitlines()
    assert "Traceback" not in said
    return said


# Listings.


async def test_sessions_are_listed_with_what_an_operator_looks_for(world: Deployment) -> None:
    alice = await world.signed_in("alice")
    await world.signed_in("bob", resource=TASKS)
    listed = (await on(world, "sessions", "list", "--output", "json")).json
    assert listed["count"] == 2
    by_server = {item["server"]: item for item in listed["sessions"]}
    notes = by_server[NOTES_SERVER]
    assert (notes["client"], notes["resource"], notes["state"]) == (alice.client_id, NOTES, "live")
    assert notes["issuer"] == world.upstream.issuer
    table = (await on(world, "sessions", "list")).out
    assert table.splitlines()[0].split()[:3] == ["SESSION", "USER", "SUBJECT"]
    assert notes["session"] in table
    assert NOTES_SERVER in table


async def test_a_selector_narrows_and_two_narrow_more(world: Deployment) -> None:
    alice = await world.signed_in("alice")
    await world.signed_in("alice", resource=TASKS)
    await world.signed_in("bob")
    pseudonym = (await on(world, "who-can", "--user", "alice", "--output", "json")).json
    user = pseudonym["rights"][0]["user"]

    async def number(*selectors: str) -> int:
        return int(
            (await on(world, "sessions", "list", *selectors, "--output", "json")).json["count"]
        )

    assert await number("--user", user) == 2
    assert await number("--user", user, "--server", NOTES_SERVER) == 1
    assert await number("--server", NOTES_SERVER) == 2
    assert await number("--client", alice.client_id) == 1
    assert await number("--upstream", "acme") == 3
    session = (await on(world, "sessions", "list", "--output", "json")).json["sessions"][0]
    assert await number("--session", session["session"]) == 1


@pytest.mark.parametrize("by", ["pseudonym", "sub", "subject", "account"])
async def test_a_user_is_known_by_four_names(world: Deployment, by: str) -> None:
    await world.signed_in("alice")
    await world.signed_in("bob")
    [(user_id, subject)] = await sql(
        world.folder,
        "SELECT u.user_id, u.subject FROM users u JOIN sessions s ON s.user_id = u.user_id"
        " ORDER BY s.created_at, s.rowid LIMIT 1",
    )
    pseudonym = world.server._audit.pseudonym("user", user_id)
    name = {
        "pseudonym": pseudonym, "sub": user_id, "subject": subject, "account": "alice",
    }[by]  # fmt: skip
    listed = (await on(world, "sessions", "list", "--user", name, "--output", "json")).json
    assert [item["user"] for item in listed["sessions"]] == [pseudonym]


async def test_no_listing_holds_a_token_or_an_account_name(world: Deployment) -> None:
    alice = await world.signed_in("alice")
    released = (await world.exchange(NOTES_SERVER, alice.access_token)).json()
    said = ""
    for command in (["sessions", "list"], ["connections", "list"], ["who-can"]):
        for output in ("text", "json"):
            said += (await on(world, *command, "--output", output)).out
    for secret in (
        "Alice Liddell",
        alice.access_token, alice.refresh_token, released["access_token"], "alice",
    ):  # fmt: skip
        assert secret not in said


async def test_who_can_says_what_is_in_the_way(world: Deployment) -> None:
    await world.signed_in("alice")

    async def state() -> str:
        [right] = (await on(world, "who-can", "--output", "json")).json["rights"]
        return str(right["state"])

    assert await state() == "can"
    await sql(world.folder, "UPDATE connections SET dead = 1")
    assert await state() == "connection_dead"
    await sql(world.folder, "UPDATE connections SET rejected = 1")
    assert await state() == "connection_rejected"
    [acme] = yaml.safe_load((world.folder / "authserver.yaml").read_text())["upstreams"]
    reconfigure(world, upstreams=[acme | {"clientId": "another"}])
    assert await state() == "registration_not_configured"
    await sql(world.folder, "UPDATE users SET blocked_at = 1")
    assert await state() == "user_blocked"
    reconfigure(world, allowedWorkloads={"namespaces": ["elsewhere"], "names": ["*"]})
    assert await state() == "workload_not_allowed"
    await sql(world.folder, "UPDATE sessions SET ended_at = 1")
    assert (await on(world, "who-can", "--output", "json")).json["rights"] == []


async def test_connections_of_a_client_that_is_not_configured_are_listed_as_such(
    world: Deployment,
) -> None:
    await world.signed_in("alice")

    async def states() -> list[str]:
        listed = (await on(world, "connections", "list", "--output", "json")).json
        return [item["state"] for item in listed["connections"]]

    [acme] = yaml.safe_load((world.folder / "authserver.yaml").read_text())["upstreams"]
    reconfigure(world, upstreams=[acme | {"clientId": "another"}])
    assert await states() == ["registration_not_configured"]
    until = datetime.fromtimestamp(world.clock() + 60, UTC).isoformat()
    former = {"clientId": acme["clientId"], "clientSecretFile": "upstream-secret", "until": until}
    reconfigure(world, upstreams=[acme | {"clientId": "another", "former": [former]}])
    assert await states() == ["live"]
    # Rows stored before there were registrations are known by their issuer.
    registered = "authorization_server = NULL, registered_client_id = NULL"
    await sql(world.folder, f"UPDATE connections SET {registered}")
    assert await states() == ["live"]
    await sql(world.folder, "UPDATE connections SET upstream_issuer = 'https://elsewhere'")
    assert await states() == ["registration_not_configured"]


# Unknown names, and storage that does not serve.


@pytest.mark.parametrize(
    ("selector", "near"),
    [
        (("--server", "mcp-servers/note"), "did you mean mcp-servers/notes"),
        (("--upstream", "acne"), "did you mean acme"),
        (("--server", "qqq"), "no server 'qqq'"),
        (("--client", "nobody"), "no client 'nobody'"),
        (("--session", "nobody"), "no session 'nobody'"),
    ],
)
async def test_an_unknown_name_suggests_the_nearest(
    world: Deployment, selector: tuple[str, str], near: str
) -> None:
    await world.signed_in("alice")
    assert near in one_line(await on(world, "sessions", "list", *selector))


async def test_an_unknown_user_suggests_the_nearest(world: Deployment) -> None:
    await world.signed_in("alice")
    [(subject,)] = await sql(world.folder, "SELECT subject FROM users")
    said = one_line(await on(world, "sessions", "end", "--user", f"{subject}x", *WHY))
    assert subject in said
    assert await count(world.folder, "sessions") == 1


async def test_an_account_name_that_is_nearly_right_leads_to_its_user(world: Deployment) -> None:
    """By the pseudonym: the name itself is shown on the user's own pages alone."""
    await world.signed_in("alice")
    listed = (await on(world, "sessions", "list", "--user", "alice", "--output", "json")).json
    [session] = listed["sessions"]
    said = one_line(await on(world, "sessions", "list", "--user", "alicf"))
    assert said.endswith(f"no user 'alicf'; did you mean {session['user']} (by account name)?")


async def test_an_error_moves_no_cursor(world: Deployment) -> None:
    """Subjects are chosen at upstreams."""
    await world.signed_in("alice")
    await sql(world.folder, "UPDATE users SET subject = ?", "user-1\x1b[2J")
    said = one_line(await on(world, "sessions", "list", "--user", "user-1xxx"))
    assert "did you mean user-1?[2J" in said


async def test_a_name_that_several_accounts_have_ends_nobody(world: Deployment) -> None:
    await world.signed_in("alice")
    await world.signed_in("bob")
    await sql(world.folder, "UPDATE users SET subject = 'same', upstream_issuer = rowid")
    ran = await on(world, "sessions", "end", "--user", "same", *WHY)
    assert ran.code == 1
    assert "2 users are called" in ran.err
    assert await sql(world.folder, "SELECT ended_at FROM sessions") == [(None,), (None,)]


async def test_a_database_that_does_not_serve_is_one_line(world: Deployment) -> None:
    await world.signed_in("alice")
    for version, words in ((99, "schema version 99"), (3, "schema version 3")):
        await sql(world.folder, f"UPDATE schema_version SET version = {version}")
        assert words in one_line(await on(world, "sessions", "list"))
    reconfigure(world, storage={"url": f"sqlite://{world.folder}/elsewhere.db"})
    assert "does not exist yet" in one_line(await on(world, "sessions", "list"))
    reconfigure(world, storage={"url": "postgresql://u@127.0.0.1:9/d"})
    assert "storage: postgresql://u@127.0.0.1:9/d" in one_line(await on(world, "who-can"))


async def test_a_configuration_with_faults_is_told(tmp_path: Path) -> None:
    ran = await run("sessions", "list", "--config", tmp_path / "none.yaml")
    assert ran.code == 1
    assert "no such file" in ran.err


# What nobody does by accident.


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "end", *WHY),
        ("sessions", "end", "--all", *WHY),
        ("sessions", "end", "--yes", *WHY),
        ("sessions", "end", "--all", "--yes", "--user", "alice", *WHY),
        ("sessions", "end", "--all", "--yes"),
        ("sessions", "end", "--all", "--yes", "--reason", "  "),
        ("connections", "disconnect", *WHY),
        ("connections", "disconnect", "--upstream", "acme"),
        ("users", "block", "alice"),
    ],
)
async def test_nothing_ends_without_a_selector_and_a_reason(
    world: Deployment, arguments: tuple[str, ...]
) -> None:
    await world.signed_in("alice")
    one_line(await on(world, *arguments), 2)
    assert await sql(world.folder, "SELECT ended_at FROM sessions") == [(None,)]
    assert await count(world.folder, "connections") == 1
    assert await count(world.folder, "operator_events") == 0


@pytest.mark.parametrize("arguments", [("sessions", "end"), ("connections", "disconnect")])
async def test_a_dry_run_counts_and_changes_nothing(
    world: Deployment, arguments: tuple[str, str]
) -> None:
    await world.signed_in("alice")
    ran = await on(world, *arguments, "--all", "--dry-run", "--output", "json")
    assert ran.json == {"dry_run": True, arguments[0]: 1}
    assert await sql(world.folder, "SELECT ended_at FROM sessions") == [(None,)]
    assert await count(world.folder, "operator_events") == 0


# Offboarding.


async def test_ending_a_users_sessions_is_one_command(
    world: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
    tasks = await world.signed_in("alice", resource=TASKS)
    released = (await world.exchange(NOTES_SERVER, alice.access_token)).json()["access_token"]
    async with line(world) as sidecar:
        handles = (await sidecar.exchange(alice.access_token)).json()
        cursor = (await sidecar.send({}, path="/internal/revocations")).json()["cursor"]
        ran = await on(world, "sessions", "end", "--user", "alice", *WHY, "--output", "json")
        assert ran.code == 0, ran
        heard = await sidecar.send({"cursor": cursor}, path="/internal/revocations")
    assert {one["handle"] for one in heard.json()["ended"]} == {
        handles["session"], handles["connection"],
    }  # fmt: skip
    report = ran.json
    assert (report["sessions"], report["connections"]) == (2, 2)
    assert report["upstream_revocations"] == [
        {"upstream": "acme", "outcome": "revoked", "reason": None, "count": 2}
    ]
    assert report["servers"] == sorted([NOTES_SERVER, TASKS_SERVER])
    assert report["held_seconds"] == 60
    for jwt, server in ((alice.access_token, NOTES_SERVER), (tasks.access_token, TASKS_SERVER)):
        assert (await world.exchange(server, jwt)).status == 400
    assert (await world.exchange(NOTES_SERVER, bob.access_token)).status == 200
    headers = {"Authorization": f"Bearer {released}"}
    user = await world.call("GET", f"{world.upstream.issuer}/api/user", headers=headers)
    assert user.status == 401
    with audited(caplog) as trail:
        await world.server.housekeeping.round()
        await world.server.housekeeping.round()
    [event] = [one for one in trail.events if one["action"] == "operator_command"]
    assert event["command"] == "sessions end"
    assert (event["reason"], event["sessions"], event["revoked_upstream"]) == ("ticket 4711", 2, 2)
    assert event["os_user"]
    assert event["selection"].startswith("user=")
    assert "alice" not in event["selection"]


async def test_people_read_what_was_done(world: Deployment) -> None:
    await world.signed_in("alice")
    ran = await on(world, "sessions", "end", "--all", "--yes", *WHY)
    said = ran.out.splitlines()
    assert said[0] == "1 session(s) ended, 1 connection(s) deleted"
    assert said[1] == "  1 at acme: revoked"
    assert said[2].startswith("0 sidecar(s) of 1 server(s) follow the revocation feed")


async def test_how_many_sidecars_hear_of_an_ending_is_said(world: Deployment) -> None:
    await world.signed_in("alice")
    async with line(world) as notes, line(world, TASKS_SERVER) as tasks:
        polls = []
        for sidecar in (notes, tasks):
            cursor = (await sidecar.send({}, path="/internal/revocations")).json()["cursor"]
            send = sidecar.send({"cursor": cursor}, path="/internal/revocations")
            polls.append(asyncio.create_task(send))
        while world.server.revocation_feed.waiting < 2:
            await asyncio.sleep(0)
        await world.server.revocation_feed.note_followers()
        ran = await on(world, "sessions", "end", "--all", "--yes", *WHY, "--output", "json")
        assert ran.json["sidecars"] == 1
        world.clock.advance(31)
        ran = await on(world, "users", "block", "alice", *WHY, "--output", "json")
        assert ran.json["sidecars"] == 0
        world.server.revocation_feed.release()
        for poll in polls:
            assert (await poll).status == 200


async def test_what_could_not_be_revoked_is_said_with_its_reason(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await world.signed_in("alice")
        raw = world.folder / "authserver.yaml"
        raw.write_text(raw.read_text().replace("clientId: tokenward", "clientId: another"))
        ran = await on(world, "sessions", "end", "--all", "--yes", *WHY)
        assert ran.code == 1
        assert "1 at acme: not revoked: the tokens were given to a client that is not" in ran.out


async def test_what_waits_for_its_upstream_is_said_and_done_by_the_authserver(
    tmp_path: Path,
) -> None:
    async with (
        HostileUpstream().serve() as upstream,
        deployed(tmp_path, upstreams=upstream.configuration) as world,
    ):
        await world.signed_in()
        upstream.revocation_status = 500
        ran = await on(world, "sessions", "end", "--all", "--yes", *WHY, "--output", "json")
        assert ran.code == 1
        assert ran.json["upstream_revocations"] == [
            {"upstream": "acme", "outcome": "queued", "reason": "upstream_failed", "count": 1}
        ]
        assert await count(world.folder, "connections") == 0
        upstream.revocation_status = 200
        world.clock.advance(60)
        await world.server.housekeeping.round()
        assert upstream.revoked == ["refresh-1", "refresh-1"]
        assert await count(world.folder, "upstream_revocations") == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (503, "1 at acme: not revoked yet: the authserver tries again for 7 days (upstream_busy)"),
        (400, "1 at acme: not revoked: the upstream refuses; end the grant at the provider"),
    ],
)
async def test_people_read_what_was_not_revoked(tmp_path: Path, status: int, said: str) -> None:
    async with (
        HostileUpstream().serve() as upstream,
        deployed(tmp_path, upstreams=upstream.configuration) as world,
    ):
        await world.signed_in()
        upstream.revocation_status = status
        ran = await on(world, "connections", "disconnect", "--all", "--yes", *WHY)
        assert ran.code == 1
        assert said in ran.out


async def test_a_disconnected_upstream_leaves_the_sessions(world: Deployment) -> None:
    alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
    ran = await on(world, "connections", "disconnect", "--user", "alice", *WHY, "--output", "json")
    assert (ran.json["sessions"], ran.json["connections"]) == (0, 1)
    refused = await world.exchange(NOTES_SERVER, alice.access_token)
    assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
    assert (await world.exchange(NOTES_SERVER, bob.access_token)).status == 200
    assert (await world.signed_in("alice")).access_token


async def test_a_user_is_blocked_and_let_in_again(world: Deployment) -> None:
    alice = await world.signed_in("alice")

    async def act(action: str) -> Ran:
        return await on(world, "users", action, "alice", *WHY, "--output", "json")

    async def releases(user: SignedIn) -> int:
        return (await world.exchange(NOTES_SERVER, user.access_token)).status

    assert (await act("block")).json["changed"] is True
    assert await releases(alice) == 400
    assert len(await sql(world.folder, "SELECT 1 FROM revocations")) == 1
    assert (await act("block")).json["changed"] is False
    assert (await act("unblock")).json["changed"] is True
    assert await releases(alice) == 200
    assert await count(world.folder, "operator_events") == 3
    dry = await on(world, "users", "block", "alice", "--dry-run")
    assert dry.out.startswith("would block user ")
    assert await releases(alice) == 200


# The process.


async def test_it_runs_as_a_process_and_quits_when_nobody_reads(world: Deployment) -> None:
    await world.signed_in("alice")
    config = ("--config", world.folder / "authserver.yaml")
    ran = await spawn("connections", "list", "--output", "json", *config)
    assert (ran.code, ran.json["count"], ran.err) == (0, 1, "")


async def test_json_is_one_document_however_long(world: Deployment) -> None:
    for _ in range(3):
        await world.signed_in("alice")
    ran = await on(world, "sessions", "list", "--output", "json")
    assert json.loads(ran.out)["count"] == 3 == len(json.loads(ran.out)["sessions"])
    assert len(ran.out.splitlines()) == 5


async def test_of_sessions_that_end_together_one_that_cannot_keeps_none_of_the_others(
    world: Deployment,
) -> None:
    """More than end together; what was done counts, and the failure is said."""
    for _ in range(12):
        await world.signed_in("alice")
    [(stuck,), *_] = await sql(world.folder, "SELECT tsid FROM sessions ORDER BY tsid LIMIT 1")
    await sql(
        world.folder,
        "CREATE TRIGGER stuck BEFORE UPDATE OF ended_at ON sessions WHEN NEW.tsid ="
        f" '{stuck}' BEGIN SELECT RAISE(ABORT, 'stuck'); END",
    )
    one_line(await on(world, "sessions", "end", "--all", "--yes", *WHY))
    left = await sql(world.folder, "SELECT tsid FROM sessions WHERE ended_at IS NULL")
    assert (stuck,) in [tuple(row) for row in left]
    ended = 12 - len(left)
    assert ended >= 9  # all of the first ten but that one
    [(fields,)] = await sql(world.folder, "SELECT fields FROM operator_events")
    assert json.loads(fields)["sessions"] == ended
    await sql(world.folder, "DROP TRIGGER stuck")
    again = await on(world, "sessions", "end", "--all", "--yes", "--output", "json", *WHY)
    assert again.json["sessions"] == len(left)
    assert await sql(world.folder, "SELECT 1 FROM connections") == []
