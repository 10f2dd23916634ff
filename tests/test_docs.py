"""What the documentation says is so: commands exist, links resolve, every setting is listed."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

import authserver.config.settings
import controller.settings
import webhook.settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_MANY: dict[Any, str] = {tuple: "[]", dict: ".NAME"}
_TARGET = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)


def _ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_every_make_target_a_page_names_exists(page: Path) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_every_link_between_pages_resolves(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_ci_runs_the_readmes_test_command_then_check_and_demo() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if "make" in line]
    assert commands == ["make test", "make check", "make demo"]
    assert re.search(r"^make test +# runs the tests$", (ROOT / "README.md").read_text(), re.M)


def test_make_alone_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    listed = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"make ([a-z-]+)", listed)) == set(_TARGET.findall(makefile))


def test_the_readmes_table_names_every_package() -> None:
    table = set(re.findall(r"^\| `([a-z]+)/` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    packages = {
        folder.parent.name
        for folder in ROOT.glob("*/__init__.py")
        if len(list(folder.parent.glob("*.py"))) > 1
    }
    assert packages <= table
    assert all((ROOT / name).is_dir() for name in table)


@pytest.mark.parametrize(
    ("process", "settings"),
    [
        ("Authserver", authserver.config.settings.Settings),
        ("Webhook", webhook.settings.Settings),
        ("Controller", controller.settings.Settings),
    ],
)
def test_the_reference_lists_every_member_of_a_configuration(
    process: str, settings: type[BaseModel]
) -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text()
    section = page.partition(f"## {process}\n")[2].partition("\n## ")[0]
    assert set(_listed(section)) == set(_members(settings))


def test_the_reference_lists_every_variable_of_the_sidecar() -> None:
    for page, settings in (
        ("configuration", "sidecar/settings.py"), ("gateway", "sidecar/gateway/settings.py"),
    ):  # fmt: skip
        text = (ROOT / f"docs/reference/{page}.md").read_text()
        listed = set(re.findall(r"^\| `TOKENWARD_([A-Z_]+)`", text, re.MULTILINE))
        source = (ROOT / settings).read_text()
        read = set(re.findall(r'variables\.(?:optional|required)\(\s*"([A-Z_]+)"', source))
        assert listed == read
        assert len(read) > 8


def test_every_decision_stands_in_the_index() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text()
    pages = {page.name for page in ROOT.glob("docs/decisions/*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\(([a-z0-9-]+\.md)\)", index))


def _listed(text: str) -> Iterator[str]:
    """`a.b`, `.c` in one cell means a.b and a.c."""
    for cell in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE):
        first, *more = re.findall(r"`([^`]+)`", cell)
        yield first
        for name in more:
            yield first.rpartition(".")[0] + name


def _members(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for field in model.model_fields.values():
        path = f"{prefix}{field.alias}"
        inner = list(_models(field.annotation))
        optional = isinstance(field.annotation, UnionType)
        kinds = get_args(field.annotation) if optional else (field.annotation,)
        many = next((_MANY[get_origin(kind)] for kind in kinds if get_origin(kind) in _MANY), "")
        for found in inner:
            yield from _members(found, f"{path}{many}.")
        if not inner:
            yield path


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) in (tuple, dict, Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from _models(part)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def test_removal_deletes_the_guards_parameter_before_the_binding_that_uses_it() -> None:
    """The other way round, an API server keeps the parameter until it is started anew."""
    page = (ROOT / "docs/how-to/install.md").read_text()
    removal = page[page.index("## Remove") : page.index("## Install again")]
    steps = [line for line in removal.splitlines() if line.startswith("kubectl delete")]
    parameter = next(i for i, step in enumerate(steps) if "configmap tokenward-webhook" in step)
    binding = next(i for i, step in enumerate(steps) if "tokenward-guard-configuration" in step)
    assert parameter < binding
