"""Configuration files: YAML to a dict, and what is wrong with one as problems with their places.

Not for the sidecar: it has no file, and pydantic would double its memory.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from chassis.process import ConfigProblem, ConfigurationError

_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"  # `<<`, which takes over the members of an alias

_QUOTED: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
# A token of the grammar, such as '<block end>', or one character.
_GRAMMAR: Final = re.compile(r"""['"](?:<[a-z ]+>|\\?.)['"]""")

# What PyYAML's constructors raise for a text that is not of the type it looks like or is tagged
# with: an impossible date, an empty !!int, an unknown !!bool.
_NOT_OF_ITS_TYPE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read_mapping(file: Path) -> dict[str, Any]:
    """The one YAML mapping in `file`. Raises ConfigurationError, which repeats no value."""
    try:
        parsed = yaml.load(file.read_text("utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise _unusable(file, (error.strerror or "unreadable").lower()) from None
    except UnicodeDecodeError:
        raise _unusable(file, "is not UTF-8") from None
    except yaml.YAMLError as error:
        raise _unusable(file, _syntax_problem(error)) from None
    except RecursionError:
        raise _unusable(file, "is nested too deep") from None
    except _NOT_OF_ITS_TYPE:
        raise _unusable(file, "holds a value that is not of its YAML type") from None
    if not isinstance(parsed, dict):
        raise _unusable(file, "is not a YAML mapping")
    return parsed


def problems_of(
    invalid: ValidationError,
    *,
    unions: Collection[tuple[str, ...]] = (),
    messages: Mapping[str, str] | None = None,
) -> Iterator[ConfigProblem]:
    """Every problem that pydantic found, by its path in the file, without the value.

    `unions` holds the member names, without list indexes, that lead to each discriminated union.
    `messages` replaces pydantic's message by its error type.
    """
    wording = {"extra_forbidden": "is not a member we know", **(messages or {})}
    errors = invalid.errors(include_input=False, include_url=False, include_context=False)
    places = [error["loc"] for error in errors]
    for error in errors:
        if error["type"] == "too_short" and any(
            _is_within(place, error["loc"]) for place in places
        ):
            continue  # pydantic counts the good entries only, and the bad ones are named
        problem = wording.get(error["type"]) or error["msg"].removeprefix("Value error, ")
        yield ConfigProblem(_path(_without_tags(error["loc"], unions)), problem)


def _is_within(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _without_tags(
    place: tuple[int | str, ...], unions: Collection[tuple[str, ...]]
) -> list[int | str]:
    """A discriminated union puts its tag into the place; it is not a member of the file."""
    members: list[int | str] = []
    names: tuple[str, ...] = ()
    tag_is_next = False
    for part in place:
        if isinstance(part, str) and tag_is_next:
            tag_is_next = False
            continue
        members.append(part)
        if isinstance(part, str):
            names = (*names, part)
            tag_is_next = names in unions
    return members


def _path(place: list[int | str]) -> str:
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return written.removeprefix(".") or "the file"


def _unusable(file: Path, problem: str) -> ConfigurationError:
    return ConfigurationError([ConfigProblem(str(file), problem)])


def _syntax_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return "holds a character that YAML does not allow"
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1} " if mark is not None else ""
    if isinstance(error, _MemberProblem):
        return f"{where}{error.problem}"
    reason = _QUOTED.sub(_hide_value, str(getattr(error, "problem", None) or "no reason given"))
    return f"{where}is not YAML: {reason}"


def _hide_value(quoted: re.Match[str]) -> str:
    """A password that starts with `*` or `!` would be quoted as the name of an alias or a tag."""
    return quoted[0] if _GRAMMAR.fullmatch(quoted[0]) else "(not shown)"


class _MemberProblem(yaml.MarkedYAMLError):
    """A mapping has a member that no configuration may have."""


class _Loader(yaml.SafeLoader):
    """Refuses what PyYAML takes: with two equal members the last one wins, section and all."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not when it is constructed: merging an alias repeats members on purpose.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if key.tag not in (_TEXT, _MERGE):
                raise _MemberProblem(
                    problem="has a member whose name is not text; put the name in quotes",
                    problem_mark=key.start_mark,
                )
            if key.value in names:
                raise _MemberProblem(
                    problem="names a member a second time", problem_mark=key.start_mark
                )
            names.add(key.value)
        return node
