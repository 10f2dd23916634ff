"""Promise 1: a stored token is released to its owner and to nobody else; missing data denies."""

import re
from pathlib import Path

import pytest

from tests.support.database_file import dump, sql
from tests.support.denial_cases import (
    Case,
    another_name,
    another_namespace,
    revoked_session,
    session_for_another_resource,
    session_moved_to_another_owner,
    session_of_another_client,
    session_of_another_user,
    session_over_before_its_token,
    with_claims,
)
from tests.support.deployment import NOTES, TASKS, Deployment, deployed
from tests.support.forged_tokens import claims_of
from tests.support.workloads import (
    DENIED,
    NOTES_SERVER,
    TASKS_SERVER,
    audited,
    forged,
    form,
    line,
    reconfigure,
    replica,
    verdict,
)

TWO_UPSTREAMS = {"upstreams": ["acme", "other"]}


def resource(url: str, name: str, **more: object) -> dict[str, object]:
    workload = {"namespace": "mcp-servers", "name": name}
    return {"resource": url, "workload": workload, "upstreams": ["acme"], "scopes": ["mcp"]} | more


async def test_the_owner_gets_the_users_upstream_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        answer = await world.exchange(NOTES_SERVER, alice.access_token)
        assert answer.status == 200, answer.text
        assert answer.json()["upstream"] == "acme"
        released = answer.json()["access_token"]
        assert world.upstream.grants.bearer(released).user.login == "alice"


async def test_each_user_gets_their_own_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        for user in ("alice", "bob", "alice"):
            jwt = (await world.signed_in(user)).access_token
            released = (await sidecar.exchange(jwt)).json()["access_token"]
            assert world.upstream.grants.bearer(released).user.login == user


async def test_an_answer_holds_the_contracts_members_and_nothing_else(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        answer = await world.exchange(NOTES_SERVER, alice.access_token)
        released = answer.json()
        secret = released.pop("access_token")
        handles = [released.pop(name) for name in ("session", "connection")]
        assert len(set(handles)) == 2
        assert all(re.fullmatch(r"[0-9a-f]{36}", handle) for handle in handles)
        assert released == {
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "upstream": "acme",
            "scope": "openid",
            "expires_in": 3600,
            "cache_ttl": 60,
            "sub": claims_of(alice.access_token)["sub"],
            "client_id": alice.client_id,
            "release": ["HandOut", "Attach"],
            "apis": [],
        }
        assert set(answer.headers) <= {
            "Cache-Control", "Pragma", "X-Content-Type-Options", "X-Request-Id", "X-Request-ID",
            "Content-Type", "Content-Length", "Date", "Server",
        }  # fmt: skip
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        grant = world.upstream.grants.bearer(secret)
        for canary in (grant.refresh_token, claims_of(alice.access_token)["tsid"], "user-1001"):
            assert canary not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    ("passed", "upstream_life", "expires_in", "cache_ttl"),
    [
        (0, 3600, 3600, 60),
        (880, 3600, 2720, 20),  # the JWT has 20 of its 900 seconds left
        (902, 3600, 2698, 0),  # within the leeway of the JWT
        (0, 50, 50, 40),  # a short upstream token counts as stale a fifth before its end
        (30, 50, 20, 10),
    ],
)
async def test_a_sidecar_may_keep_a_token_no_longer_than_anything_it_rests_on(
    tmp_path: Path, passed: int, upstream_life: int, expires_in: int, cache_ttl: int
) -> None:
    async with deployed(tmp_path, access_token_lifetime=upstream_life) as world:
        jwt = (await world.signed_in()).access_token
        world.clock.advance(passed)
        answer = (await world.exchange(NOTES_SERVER, jwt)).json()
        assert (answer["expires_in"], answer["cache_ttl"]) == (expires_in, cache_ttl)


_NOT_ITS_SESSION = "no_such_session_of_this_token"
DENIALS: list[tuple[str, Case, str]] = [
    ("another server of the namespace", another_name, "caller_is_not_the_owner"),
    ("a server of the same name elsewhere", another_namespace, "caller_is_not_the_owner"),
    ("an unknown session", with_claims(tsid="x" * 43), _NOT_ITS_SESSION),
    ("another user's session", session_of_another_user, _NOT_ITS_SESSION),
    ("another user", with_claims(sub="somebody"), _NOT_ITS_SESSION),
    ("another client's session", session_of_another_client, _NOT_ITS_SESSION),
    ("another client", with_claims(client_id="somebody"), _NOT_ITS_SESSION),
    ("a session for another resource", session_for_another_resource, _NOT_ITS_SESSION),
    ("a session of a former owner", session_moved_to_another_owner, _NOT_ITS_SESSION),
    ("a revoked session", revoked_session, _NOT_ITS_SESSION),
    ("a session that is over", session_over_before_its_token, _NOT_ITS_SESSION),
    ("another resource of the map", with_claims(aud=TASKS), "caller_is_not_the_owner"),
    ("no resource of the map", with_claims(aud="https://x.example"), "unknown_resource"),
    ("a bad JWT", with_claims(iss="https://x.example"), "jwt_wrong_issuer"),
]


@pytest.mark.parametrize(
    ("case", "reason"), [row[1:] for row in DENIALS], ids=[row[0] for row in DENIALS]
)
async def test_whoever_is_not_the_owner_of_the_session_gets_one_answer_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: Case, reason: str
) -> None:
    open_to_all = {"namespaces": ["*"], "names": ["*"]}
    async with deployed(tmp_path, allowedWorkloads=open_to_all) as world:
        jwt = (await world.signed_in("alice")).access_token
        caller, jwt = await case(world, jwt)
        await world.server.drain()  # what a case ended is revoked upstream
        before = await dump(world.folder)
        with audited(caplog) as trail:
            answer = await world.exchange(caller, jwt)
        assert verdict(answer) == DENIED
        assert trail.reason == reason
        assert await dump(world.folder) == before
        assert world.upstream.grants.counts["alice"].refreshes == 0


async def test_denials_do_not_differ_by_a_byte_or_a_header(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        answers = [
            await world.exchange(TASKS_SERVER, alice.access_token),
            await world.exchange(NOTES_SERVER, forged(world, alice.access_token, tsid="x" * 43)),
            await world.exchange(NOTES_SERVER, forged(world, alice.access_token, aud="x")),
            await world.exchange(NOTES_SERVER, "not.a.jwt"),
        ]
        differing = {"X-Request-Id", "X-Request-ID", "Date"}
        seen = {
            (answer.status, answer.text, *sorted(
                (name, value) for name, value in answer.headers.items() if name not in differing
            ))
            for answer in answers
        }  # fmt: skip
        assert len(seen) == 1


@pytest.mark.parametrize(
    "aud",
    [
        "notes", "notes.mcp-servers", "spiffe://example.org/ns/mcp-servers/mcpserver/notes",
        "https://notes.evil.example/mcp", "https://notes.example.com:443/mcp", f"{NOTES}/",
        "https://NOTES.example.com/mcp", "HTTPS://notes.example.com/mcp", f"{NOTES}?", f"{NOTES}#",
        "https://notes.example.com/%6dcp", "https://notes.example.com/mcp\n", "",
        [NOTES], [NOTES, TASKS], [[NOTES]], {"aud": NOTES}, 7, True, None,
    ],
)  # fmt: skip
async def test_the_audience_must_be_the_resource_byte_for_byte(tmp_path: Path, aud: object) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        assert verdict(
            await world.exchange(NOTES_SERVER, forged(world, alice.access_token, aud=aud))
        ) == (DENIED)


async def test_a_moved_resource_leaves_its_sessions_to_neither_owner(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        reconfigure(world, resources=[resource(NOTES, "tasks"), resource(TASKS, "notes")])
        async with replica(world) as moved:
            for caller in (NOTES_SERVER, TASKS_SERVER):
                assert verdict(await moved.exchange(caller, alice.access_token)) == DENIED


async def test_a_resource_taken_off_the_map_is_released_to_nobody(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        reconfigure(world, resources=[resource(TASKS, "tasks")])
        async with replica(world) as without:
            assert verdict(await without.exchange(NOTES_SERVER, alice.access_token)) == DENIED


async def test_a_session_is_for_one_resource_of_its_owner(tmp_path: Path) -> None:
    other = "https://notes.example.com/other"
    both = [resource(NOTES, "notes"), resource(other, "notes")]
    async with deployed(tmp_path, resources=both) as world:
        jwt = (await world.signed_in(resource=other)).access_token
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
        assert verdict(await world.exchange(NOTES_SERVER, forged(world, jwt, aud=NOTES))) == DENIED


# An owner's own mistakes, which it may know.


def two_upstreams(folder: Path, issuer: str) -> list[dict[str, object]]:
    acme: dict[str, object] = {
        "type": "oidc",
        "issuer": issuer,
        "clientId": "tokenward",
        "clientSecretFile": "upstream-secret",
        "scopes": ["openid"],
    }
    return [acme | {"name": "acme"}, acme | {"name": "other"}]


@pytest.mark.parametrize(
    ("audience", "error"),
    [
        (None, "invalid_target"),
        ("nobody", "invalid_target"),
        ("other", "invalid_grant"),
        ("acme", None),
    ],
)
async def test_of_several_upstreams_the_one_named_is_released(
    tmp_path: Path, audience: str | None, error: str | None
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        reconfigure(
            world,
            upstreams=two_upstreams(world.folder, world.upstream.issuer),
            resources=[resource(NOTES, "notes", **TWO_UPSTREAMS)],
        )
        async with replica(world) as wider:
            answer = await wider.exchange(NOTES_SERVER, alice.access_token, audience=audience)
            assert (answer.status, answer.json().get("error")) == (400 if error else 200, error)


async def test_a_stored_token_of_an_upstream_no_longer_permitted_stays_where_it_is(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        reconfigure(
            world,
            upstreams=two_upstreams(world.folder, world.upstream.issuer),
            resources=[resource(NOTES, "notes", upstreams=["other"])],
        )
        async with replica(world) as narrower:
            answer = await narrower.exchange(NOTES_SERVER, alice.access_token, audience="acme")
            assert verdict(answer) == (400, {"error": "invalid_target"})


@pytest.mark.parametrize("where", ["form", "header", "query"])
async def test_a_session_is_never_taken_from_beside_the_token(tmp_path: Path, where: str) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        alice, bob = await world.signed_in("alice"), await world.signed_in("bob")
        tsid = claims_of(bob.access_token)["tsid"]
        if where == "form":
            answer = await sidecar.exchange(alice.access_token, tsid=tsid)
            assert verdict(answer) == DENIED
        elif where == "query":
            query = f"/internal/token-exchange?tsid={tsid}"
            answer = await sidecar.send({"subject_token": alice.access_token}, path=query)
            assert verdict(answer) == DENIED
        else:
            answer = await sidecar.send(form(alice.access_token), headers={"tsid": tsid})
            released = answer.json()["access_token"]
            assert world.upstream.grants.bearer(released).user.login == "alice"


async def test_revocation_takes_effect_at_once(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        alice = await world.signed_in("alice")
        assert (await sidecar.exchange(alice.access_token)).status == 200
        await world.call(
            "POST",
            "/oauth/revoke",
            data={"token": alice.refresh_token, "client_id": alice.client_id},
        )
        assert verdict(await sidecar.exchange(alice.access_token)) == DENIED


# The audit trail.


async def test_a_release_is_one_audit_event_without_any_identifier_in_clear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        with audited(caplog) as trail:
            answer = await world.exchange(NOTES_SERVER, alice.access_token)
        (event,) = trail.events
        assert event["decision"] == "release"
        assert event["spiffe_id"] == "spiffe://example.org/ns/mcp-servers/mcpserver/notes"
        assert (event["resource"], event["upstream"]) == (NOTES, "acme")
        assert event["refreshed"] is False
        assert int(event["certificate_serial"], 16) > 0
        assert len(event["certificate_sha256"]) == 64
        assert len(event["session"]) == len(event["jti"]) == len(event["user"]) == 24
        assert (event["action"], event["outcome"]) == ("release", "success")
        assert event["client"] == alice.client_id
        claims = claims_of(alice.access_token)
        secrets = (claims["tsid"], claims["jti"], claims["sub"], answer.json()["access_token"])
        for record in caplog.records:
            for secret in (*secrets, alice.access_token, alice.refresh_token):
                assert secret not in str(record.__dict__)


async def test_a_denial_is_one_audit_event_with_all_that_was_proven(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        with audited(caplog) as trail:
            await world.exchange(TASKS_SERVER, alice.access_token)
        (event,) = trail.events
        assert (event["decision"], event["error"]) == ("deny", "invalid_request")
        assert event["reason"] == "caller_is_not_the_owner"
        assert event["spiffe_id"] == "spiffe://example.org/ns/mcp-servers/mcpserver/tasks"
        assert event["resource"] == NOTES
        assert event["certificate_serial"]
        assert event["session"]
        assert event["client"] == alice.client_id
        assert "upstream" not in event


# Section 2.1: whatever is wrong later is not looked at. Each row is wrong in its own way and in
# every later one, and is refused for its own.


@pytest.mark.parametrize("step", range(8))
async def test_checks_run_in_the_order_of_the_release_policy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: int
) -> None:
    expected = [
        (401, "certificate_not_valid_now"),
        (403, "certificate_denied"),
        (403, "workload_not_allowed"),
        (400, "unsupported_grant_type"),
        (400, "caller_is_not_the_owner"),
        (400, "jwt_bad_claims"),
        (429, "releases"),
        (400, "no_such_session_of_this_token"),
    ]
    name = "notes" if step >= 5 else "tasks"
    spiffe_id = f"spiffe://example.org/ns/mcp-servers/mcpserver/{name}"
    denied = {"spiffeIds": [spiffe_id]} if step <= 1 else {}
    allowed = {"namespaces": ["mcp-servers"], "names": ["notes"] if step <= 2 else ["*"]}
    rate = {"releasesPerWorkloadPerSecond": 1 if step <= 6 else 100}
    async with deployed(
        tmp_path, deniedCertificates=denied, allowedWorkloads=allowed, limits=rate
    ) as world:
        alice = await world.signed_in("alice")
        wrong: dict[str, object] = {"tsid": "x" * 43}
        if step <= 5:
            wrong["sub"] = 7
        jwt = forged(world, alice.access_token, **wrong)
        changes: dict[str, str | None] = {"audience": "not permitted"}
        if step <= 3:
            changes["grant_type"] = "password"
        owner = NOTES_SERVER if step >= 5 else TASKS_SERVER
        async with line(world, owner) as sidecar:
            for _ in range(2):  # what the rate limit of the seventh step leaves
                await sidecar.exchange(jwt, **changes)
            if step == 0:
                world.clock.advance(5 * 3600)
            with audited(caplog) as trail:
                answer = await sidecar.exchange(jwt, **changes)
        assert (answer.status, trail.reason) == expected[step]


async def test_an_upstream_that_is_not_permitted_is_not_asked(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        world.clock.advance(3600)
        fresh = forged(world, alice.access_token, **lasting(world))
        answer = await world.exchange(NOTES_SERVER, fresh, audience="other")
        assert verdict(answer) == (400, {"error": "invalid_target"})
        assert world.upstream.grants.counts["alice"].refreshes == 0


def lasting(world: Deployment) -> dict[str, int]:
    now = int(world.clock())
    return {"iat": now, "nbf": now, "exp": now + 900}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE connections SET sealed_tokens = zeroblob(200)",
        "UPDATE connections SET generation = generation - 1",
        "ALTER TABLE sessions RENAME TO gone",
    ],
)
async def test_storage_that_does_not_answer_truly_is_an_outage_and_no_verdict(
    tmp_path: Path, damage: str
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        await sql(world.folder, damage)
        answer = await world.exchange(NOTES_SERVER, alice.access_token)
        assert verdict(answer) == (503, {"error": "temporarily_unavailable"})
        assert answer.headers["Retry-After"]


async def test_a_token_known_from_before_is_over_at_its_end_too(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        assert (await sidecar.exchange(jwt)).status == 200
        world.clock.advance(904)
        assert (await sidecar.exchange(jwt)).status == 200
        world.clock.advance(1)
        assert verdict(await sidecar.exchange(jwt)) == DENIED


async def test_one_changed_letter_makes_another_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        assert (await sidecar.exchange(jwt)).status == 200
        for at in (1, len(jwt) // 2, len(jwt) - 40):
            other = jwt[:at] + ("A" if jwt[at] != "A" else "B") + jwt[at + 1 :]
            assert verdict(await sidecar.exchange(other)) == DENIED
