"""The reference page of the command line says what `--help` and the outputs say, and no more."""

import argparse
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, deployed
from tests.tokenward.page import PAGE, first_cells, section
from tests.tokenward.running import on, run
from tokenward.arguments import parser

LISTINGS = {
    "tokenward sessions list": "sessions",
    "tokenward connections list": "connections",
    "tokenward who-can": "rights",
}


def commands(
    top: argparse.ArgumentParser | None = None, name: str = "tokenward"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that can be run, by its whole name."""
    top = top or parser()
    below = [one for one in top._actions if isinstance(one, argparse._SubParsersAction)]
    if not below:
        yield name, top
    for one in below:
        for word, command in one.choices.items():
            yield from commands(command, f"{name} {word}")


COMMANDS = dict(commands())


def options(command: argparse.ArgumentParser) -> set[str]:
    written = set()
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or ("\\|".join(action.choices) if action.choices else "")
        name = action.option_strings[0] if action.option_strings else ""
        takes_value = action.nargs != 0
        written.add(f"{name} {value if takes_value else ''}".strip())
    return written


def test_every_command_has_a_section_and_no_other() -> None:
    assert re.findall(r"^## (tokenward .+)$", PAGE, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_are_those_of_the_help(name: str) -> None:
    described = [cell.strip("`") for cell in first_cells(name, "option")]
    assert len(set(described)) == len(described)
    assert set(described) == options(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
async def test_the_help_shows_the_example_of_the_page(name: str) -> None:
    example = section(name).split("```\n")[1].strip()
    assert example in (COMMANDS[name].epilog or "")
    shown = await run(*name.split()[1:], "--help")
    assert shown.code == 0
    assert example in shown.out


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deployed(tmp_path) as world:
        await world.signed_in("alice")
        yield world


async def test_listings_have_the_members_of_the_page(world: Deployment) -> None:
    for name, member in LISTINGS.items():
        [item] = (await on(world, *name.split()[1:], "--output", "json")).json[member]
        described = set(re.findall(r"`(\w+)`", " ".join(first_cells(name, "member"))))
        assert described == set(item), name


async def test_an_ending_reports_the_members_of_the_page(world: Deployment) -> None:
    ran = await on(
        world, "sessions", "end", "--all", "--yes", "--reason", "why", "--output", "json"
    )
    described = re.findall(r"`(\w+)`", " ".join(first_cells("tokenward sessions end", "member")))
    assert set(described) == set(ran.json)


def test_every_outcome_of_a_revocation_is_described() -> None:
    from authserver.connections.upstream_revocation import Fate

    cells = first_cells("tokenward sessions end", "`outcome`")
    assert {cell.strip("`") for cell in cells} == set(Fate)


async def test_help_and_wrong_usage_have_their_exit_codes() -> None:
    assert (await run("--help")).code == 0
    assert (await run("--version")).out.startswith("tokenward ")
    for wrong in ((), ("nothing",), ("sessions",), ("explain",), ("users", "block")):
        assert (await run(*wrong)).code == 2
