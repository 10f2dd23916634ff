"""The pages for four people begin with a wish and end with what is seen; their commands run."""

import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.support.deployment import Deployment, deployed
from tests.tokenward.running import on, run, spawn
from tokenward.arguments import parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.stem: page.read_text() for page in sorted(ROOT.glob("docs/for-*.md"))}
WITHOUT_STORAGE = ("inject", "explain", "dev")


def commands(page: str) -> list[list[str]]:
    blocks = re.findall(r"```tokenward\n(.+?)```", PAGES[page], re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deployed(tmp_path) as world:
        raw = yaml.safe_load((tmp_path / "authserver.yaml").read_text())
        acme = raw["upstreams"][0] | {"scopes": ["openid", "profile"]}
        await world.reconfigure(upstreams=[acme])
        for name in ("k1", "signing.pem", "upstream-secret", "tls.key", "tokenward.db"):
            (tmp_path / name).chmod(0o600)
        yield world


def test_there_are_four_and_the_readme_leads_to_each() -> None:
    assert set(PAGES) == {"for-authors", "for-operators", "for-security-engineers", "for-users"}
    readme = (ROOT / "README.md").read_text()
    assert all(f"(docs/{page}.md)" in readme for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_begins_with_a_wish_and_ends_with_what_is_seen(page: str) -> None:
    _, first, *_ = PAGES[page].split("\n\n")
    assert first.startswith("**You want** ")
    assert re.findall(r"^## (.+)$", PAGES[page], re.MULTILINE)[-1] == "What you see"


@pytest.mark.parametrize("page", ["for-operators", "for-security-engineers"])
async def test_the_commands_for_an_installation_run_in_their_order(
    world: Deployment, page: str
) -> None:
    await world.signed_in("alice")
    for command in commands(page):
        if command[0] in WITHOUT_STORAGE:
            continue
        ran = await on(world, *command)
        assert (ran.code, ran.err) == (0, ""), command


async def test_after_the_security_page_the_user_can_obtain_nothing(world: Deployment) -> None:
    """What the page says at its end."""
    await world.signed_in("alice")
    await world.signed_in("bob")
    for command in commands("for-security-engineers"):
        assert (await on(world, *command)).code == 0, command
    rights = (await on(world, "who-can", "--output", "json")).json["rights"]
    assert {right["state"] for right in rights if right["subject"] != "user-1002"} <= {
        "user_blocked"
    }
    assert [right["state"] for right in rights if right["subject"] == "user-1002"] == ["can"]


async def test_the_request_id_of_the_operators_page_is_explained(tmp_path: Path) -> None:
    (command,) = [one for one in commands("for-operators") if one[0] == "explain"]
    _, request_id, log = command
    (tmp_path / log).write_text(
        '{"time": "2026-11-29T03:00:00.000+00:00", "level": "info", "process": "authserver",'
        ' "event": "refused", "source": "public", "reason": "no_grant_type",'
        f' "request_id": "{request_id}"}}\n'
    )
    ran = await run("explain", request_id, tmp_path / log)
    assert (ran.code, ran.err) == (0, "")
    assert "no_grant_type" in ran.out


async def test_the_authors_pod_is_injected_and_the_command_for_development_is_one(
    tmp_path: Path,
) -> None:
    inject, dev = (
        next(one for one in commands("for-authors") if one[0] == name) for name in ("inject", "dev")
    )
    (pod,) = re.findall(r"```yaml pod\n(.+?)```", PAGES["for-authors"], re.DOTALL)
    (tmp_path / inject[-1]).write_text(pod)
    ran = await spawn(*inject[:-1], tmp_path / inject[-1])
    assert ran.code == 0, ran.err
    injected = yaml.safe_load(ran.out)
    containers = injected["spec"]["containers"] + injected["spec"].get("initContainers", [])
    assert "tokenward-sidecar" in {one["name"] for one in containers}
    parsed = parser().parse_args(dev)
    assert (parsed.command, parsed.port) == ("dev", 8000)


def test_what_is_applied_exists() -> None:
    applied = re.findall(r"kubectl apply -k (\S+)", "".join(PAGES.values()))
    assert len(applied) == 2
    assert all((ROOT / path / "kustomization.yaml").exists() for path in applied)
