"""A configuration file is read in one way only, and a fault repeats nothing of it."""

from pathlib import Path

import pytest

from chassis.process import ConfigurationError
from chassis.yaml_config import read_mapping

SECRET = "hunter2"


def _problem(tmp_path: Path, content: bytes) -> str:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as bad:
        read_mapping(file)
    (fault,) = bad.value.faults
    assert fault.path == str(file)
    return fault.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "line 2 names a member a second time"),
        ("a: 1\n'a': 2", "line 2 names a member a second time"),
        ("a:\n  - b: {c: 1, c: 1}", "line 2 names a member a second time"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x", "line 4 names a member a second time"),
        ("on: 1", "line 1 has a member whose name is not text; put the name in quotes"),
        ("a:\n  1: b", "line 2 has a member whose name is not text; put the name in quotes"),
        ("? [a, b]\n: c", "line 1 has a member whose name is not text; put the name in quotes"),
        ("a: 2024-13-45", "holds a value that is not of its YAML type"),
        ("a: !!int ''", "holds a value that is not of its YAML type"),
        ("a: !!bool perhaps", "holds a value that is not of its YAML type"),
        ("a: " + "[" * 5000, "is nested too deep"),
        ("a: \x01", "holds a character that YAML does not allow"),
        ("", "is not a YAML mapping"),
        ("- a", "is not a YAML mapping"),
        ("a: 1\n---\nb: 1", "line 2 is not YAML: but found another document"),
        ("a: b: c", "line 1 is not YAML: mapping values are not allowed here"),
        ("a:\n\tb: c", "line 2 is not YAML: found character '\\t' that cannot start any token"),
        ("a: [b\nc: d", "line 2 is not YAML: expected ',' or ']', but got ':'"),
    ],
)
def test_a_file_that_is_not_one_plain_mapping_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    assert _problem(tmp_path, text.encode()) == problem


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    assert _problem(tmp_path, b"a: \xff") == "is not UTF-8"


@pytest.mark.parametrize(
    "value", [f"*{SECRET}", f"!{SECRET} x", f'"\\{SECRET}', f"%{SECRET}'s", f"`{SECRET}"]
)
def test_a_password_that_is_not_in_quotes_is_not_repeated(tmp_path: Path, value: str) -> None:
    problem = _problem(tmp_path, f"password: {value}".encode())
    assert "line 1 is not YAML" in problem
    assert SECRET not in problem


def test_a_mapping_may_take_over_the_members_of_another(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: &x {b: 1, c: 2}\nd: {e: &y {<<: *x, b: 3}}\nf: {<<: *y, c: 4}\n")
    assert read_mapping(file) == {
        "a": {"b": 1, "c": 2},
        "d": {"e": {"b": 3, "c": 2}},
        "f": {"b": 3, "c": 4},
    }
