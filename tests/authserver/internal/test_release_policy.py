"""What an exchange answer says of a token's use, and what an owner may want of a token."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.pki import CertificateAuthority
from tests.support.database_file import dump
from tests.support.deployment import NOTES, Deployment, deployed
from tests.support.workloads import DENIED, NOTES_SERVER, TASKS_SERVER, audited, verdict

API: dict[str, Any] = {
    "name": "rest",
    "baseUrl": "https://api.example.com/v1",
    "methods": ["GET", "POST"],
    "pathPrefixes": ["/repos"],
}
SAID = {
    "headers": {"accepted": "X-Accepted", "granted": "X-Granted"},
    "members": {"status": 200, "error": "error", "value": "missing_scope", "scopes": "needed"},
}
ANSWERED: dict[str, Any] = {
    "name": "rest",
    "base_url": "https://api.example.com/v1",
    "methods": ["GET", "POST"],
    "path_prefixes": ["/repos"],
    "default": False,
    "credential_headers": [],
    "credential_parameters": [],
    "link_members": [],
    "search_answers": True,
    "missing_scope": {"any_of": False, "askable": ["openid"]},
}


def notes(**more: object) -> list[dict[str, object]]:
    workload = {"namespace": "mcp-servers", "name": "notes"}
    resource = {"resource": NOTES, "workload": workload, "upstreams": ["acme"], "scopes": ["mcp"]}
    return [resource | more]


async def with_upstream(world: Deployment, **changes: object) -> None:
    """Change the one upstream of the running authserver."""
    configuration = yaml.safe_load((world.folder / "authserver.yaml").read_text())
    (upstream,) = configuration["upstreams"]
    await world.reconfigure(upstreams=[upstream | changes])


async def released(world: Deployment, jwt: str, **changes: str) -> dict[str, Any]:
    answer = await world.exchange(NOTES_SERVER, jwt, **changes)
    assert answer.status == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("uses", [["HandOut"], ["Attach"], ["Attach", "HandOut"]])
async def test_the_answer_says_how_the_map_lets_the_token_be_used(
    tmp_path: Path, uses: list[str]
) -> None:
    async with deployed(tmp_path, resources=notes(release=uses)) as world:
        await with_upstream(world, apis=[API])
        answer = await released(world, (await world.signed_in()).access_token)
        assert answer["release"] == uses
        assert ("apis" in answer) is ("Attach" in uses)


async def test_the_answer_names_the_apis_with_every_member_spelt_out(tmp_path: Path) -> None:
    full = API | {
        "name": "files",
        "excludedPaths": ["/repos/*/keys"],
        "default": True,
        "credentialHeaders": ["X-Api-Key"],
        "credentialParameters": ["key"],
        "linkMembers": ["@odata.nextLink"],
        "searchAnswers": False,
        "missingScope": {"anyOf": True, **SAID},
    }
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        await with_upstream(world, apis=[API, full])
        assert (await released(world, jwt))["apis"] == [
            ANSWERED,
            ANSWERED
            | {
                "name": "files",
                "excluded_paths": ["/repos/*/keys"],
                "default": True,
                "credential_headers": ["X-Api-Key"],
                "credential_parameters": ["key"],
                "link_members": ["@odata.nextLink"],
                "search_answers": False,
                "missing_scope": {"any_of": True, "askable": ["openid"]} | SAID,
            },
        ]


async def test_a_reload_narrows_at_once(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        await with_upstream(world, apis=[API])
        assert (await released(world, jwt))["apis"] == [ANSWERED]
        await with_upstream(world, apis=[API | {"methods": ["GET"]}])
        assert (await released(world, jwt))["apis"] == [ANSWERED | {"methods": ["GET"]}]
        await world.reconfigure(resources=notes(release=["HandOut"]))
        assert "apis" not in await released(world, jwt)


async def test_a_private_authority_goes_with_the_apis_and_nothing_else_of_its_file(
    tmp_path: Path,
) -> None:
    authority = CertificateAuthority.create("private")
    pem = authority.certificate_pem.decode()
    (tmp_path / "private.pem").write_text(f"# canary of a comment\n{pem}")
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        await with_upstream(world, apis=[API], caFile="private.pem")
        answer = await released(world, jwt)
        assert answer["apis"] == [ANSWERED | {"ca": pem}]


# Wishes: scopes that are missing, and a narrower token.


async def test_a_missing_scope_that_is_stored_gets_the_token(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        assert (await released(world, jwt, missing_scope="openid"))["scope"] == "openid"


async def test_a_missing_scope_within_the_ceiling_is_to_be_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice", scope="mcp offline_access")
        await with_upstream(world, stepUpScopes=["repo:all", "50%", "gist"])
        with audited(caplog) as trail:
            answer = await world.exchange(
                NOTES_SERVER, alice.access_token, missing_scope="50% openid repo:all 50%"
            )
        assert (answer.status, answer.json()) == (
            403,
            {
                "error": "insufficient_scope",
                "scope": "mcp offline_access acme/50%25 acme/repo:all",
            },
        )
        (event,) = trail.events
        assert (event["reason"], event["upstream"]) == ("insufficient_scope", "acme")
        # Nothing is held against the session: its client refreshes as before.
        assert (await world.refresh(alice.client_id, alice.refresh_token)).status == 200
        assert (await world.exchange(NOTES_SERVER, alice.access_token)).status == 200


async def test_the_challenge_names_all_scopes_of_the_session_not_those_of_a_narrowed_token(
    tmp_path: Path,
) -> None:
    resources = notes(scopes=["mcp", "write"])
    async with deployed(tmp_path, resources=resources) as world:
        alice = await world.signed_in("alice", scope="mcp write")
        narrowed = await world.refresh(alice.client_id, alice.refresh_token, scope="mcp")
        await with_upstream(world, stepUpScopes=["repo"])
        answer = await world.exchange(
            NOTES_SERVER, narrowed.json()["access_token"], missing_scope="repo"
        )
        assert answer.json()["scope"] == "mcp write acme/repo"


@pytest.mark.parametrize(
    ("wish", "error", "reason"),
    [
        ({"missing_scope": "admin:org"}, "invalid_request", "missing_scope_not_permitted"),
        ({"missing_scope": "repo admin:org"}, "invalid_request", "missing_scope_not_permitted"),
        ({"missing_scope": "acme/repo"}, "invalid_request", "missing_scope_not_permitted"),
        (
            {"target_audience": "https://api.example"},
            "invalid_target",
            "target_audience_not_permitted",
        ),
        ({"scope": "openid"}, "invalid_scope", "scope_not_permitted"),
    ],
    ids=str,
)
async def test_a_wish_beyond_what_the_operator_permits_is_told_to_the_owner_alone(
    tmp_path: Path,
    wish: dict[str, str],
    error: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        await with_upstream(world, stepUpScopes=["repo"])
        before = await dump(world.folder)
        with audited(caplog) as trail:
            answer = await world.exchange(NOTES_SERVER, jwt, **wish)
        (parameter,) = wish
        assert (answer.status, answer.json()["error"]) == (400, error)
        assert answer.json()["parameter"] == parameter
        assert trail.reason == reason
        assert await dump(world.folder) == before
        assert verdict(await world.exchange(TASKS_SERVER, jwt, **wish)) == DENIED


@pytest.mark.parametrize("name", ["missing_scope", "target_audience", "scope"])
@pytest.mark.parametrize("value", [" ", " a", "a ", "a  b", "a\tb", "ü", "a\nb", "x" * 1025])
async def test_a_wish_that_is_not_of_its_form_is_refused_before_the_jwt_is_looked_at(
    tmp_path: Path, name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        with audited(caplog) as trail:
            answer = await world.exchange(NOTES_SERVER, "no.jwt.here", **{name: value})
        assert verdict(answer) == DENIED
        assert trail.reason == name
