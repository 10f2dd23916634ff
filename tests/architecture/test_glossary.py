"""The names that the glossary calls gone do not come back into the product."""

import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("authserver", "webhook", "sidecar", "controller", "chassis")
_ROW = re.compile(r"^\| `(\w+)` \| .+ \| (all|`[\w/]+`) \|$", re.MULTILINE)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


def gone() -> list[tuple[str, str]]:
    page = (ROOT / "docs/reference/glossary.md").read_text("utf-8")
    return [(name, where.strip("`")) for name, where in _ROW.findall(page)]


def snake_case(identifier: str) -> str:
    """`StorageDown` and `_storage_down` are the same name."""
    return "_".join(_WORDS.findall(identifier)).lower()


def identifiers(file: Path) -> Iterator[str]:
    with io.BytesIO(file.read_bytes()) as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.NAME:
                yield token.string


@cache
def names_of(package: str) -> dict[str, set[str]]:
    """Where each name of a package is used, as `file: identifier`, by its form in snake_case."""
    files = list((ROOT / package).rglob("*.py"))
    assert files
    found: dict[str, set[str]] = {}
    for file in files:
        for identifier in {*identifiers(file), file.stem}:
            use = f"{file.relative_to(ROOT)}: {identifier}"
            found.setdefault(snake_case(identifier), set()).add(use)
    return found


def test_the_glossary_lists_what_is_gone() -> None:
    assert len(gone()) >= 25


@pytest.mark.parametrize(("name", "where"), gone(), ids=lambda value: value.replace("/", "-"))
def test_a_name_that_is_gone_does_not_come_back(name: str, where: str) -> None:
    folders = PACKAGES if where == "all" else (where,)
    assert {use for folder in folders for use in names_of(folder).get(name, ())} == set()
