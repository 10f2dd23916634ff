import os
import re
from pathlib import Path

import pytest

from tests.cluster.control_plane.programs import (
    ETCD,
    KUBERNETES,
    CannotBuild,
    Module,
    build,
    cache_folder,
)

# Takes `-o FILE` as Go does, writes that file, and keeps its arguments.
_GO = """#!/bin/sh
echo "$@" >> "{calls}"
{before}
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""


class Go:
    """A stand-in for the go command, first in PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder / "bin"
        self._folder.mkdir()
        self._calls = folder / "calls"
        self.behave("")
        path = f"{self._folder}{os.pathsep}{os.defpath}"
        monkeypatch.setenv("PATH", path)

    def behave(self, before: str) -> None:
        program = self._folder / "go"
        program.write_text(_GO.format(calls=self._calls, before=before), "utf-8")
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text("utf-8").splitlines() if self._calls.exists() else []


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    return Go(tmp_path, monkeypatch)


@pytest.fixture
def module(tmp_path: Path) -> Module:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module x\n\nrequire example.com/a v1.2.3\n", "utf-8")
    (folder / "go.sum").write_text("", "utf-8")
    return Module(folder, "example.com/a")


def test_a_program_is_built_once_with_two_jobs(module: Module, go: Go, tmp_path: Path) -> None:
    built = build(tmp_path / "cache", module, "a", "example.com/a/cmd/a")
    assert built.read_text("utf-8") == "built\n"
    assert build(tmp_path / "cache", module, "a", "example.com/a/cmd/a") == built
    (call,) = go.calls
    assert call.startswith("build -p 2 ")
    assert call.endswith(" example.com/a/cmd/a")
    assert "version.gitVersion=v1.2.3" in call


@pytest.mark.parametrize("name", ["go.mod", "go.sum"])
def test_a_changed_module_file_is_another_build(
    module: Module, go: Go, tmp_path: Path, name: str
) -> None:
    before = build(tmp_path / "cache", module, "a", "example.com/a")
    (module.folder / name).write_text("require example.com/a v1.2.4\n", "utf-8")
    assert build(tmp_path / "cache", module, "a", "example.com/a") != before
    assert len(go.calls) == 2


def test_a_build_that_fails_leaves_nothing_to_be_taken_for_a_program(
    module: Module, go: Go, tmp_path: Path
) -> None:
    go.behave("exit 3")
    with pytest.raises(CannotBuild, match="code 3"):
        build(tmp_path / "cache", module, "a", "example.com/a")
    go.behave("")
    assert build(tmp_path / "cache", module, "a", "example.com/a").exists()


def test_a_machine_without_go_says_so(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(CannotBuild, match="Go is not installed"):
        build(tmp_path / "cache", module, "a", "example.com/a")


def test_the_cache_follows_the_xdg_specification() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/tokenward/cluster")
    at_home = Path.home() / ".cache/tokenward/cluster"
    assert cache_folder({}) == at_home
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == at_home


def test_a_module_that_does_not_pin_its_project_is_refused(module: Module) -> None:
    with pytest.raises(CannotBuild, match="does not require"):
        _ = Module(module.folder, "example.com/other").version


def test_every_part_of_kubernetes_is_pinned_at_the_version_of_the_whole() -> None:
    text = (KUBERNETES.folder / "go.mod").read_text("utf-8")
    released = KUBERNETES.version.replace("v1.", "v0.", 1)
    replaced = dict(re.findall(r"^\t(k8s\.io/\S+) => \1 (v\S+)$", text, re.MULTILINE))
    unreleased = set(re.findall(r"^\t(k8s\.io/\S+) v0\.0\.0(?: |$)", text, re.MULTILINE))
    assert set(replaced.values()) == {released}
    assert unreleased
    assert unreleased <= set(replaced)


def test_the_reference_names_the_pinned_versions() -> None:
    page = (KUBERNETES.folder.parents[1] / "docs/reference/cluster-tests.md").read_text("utf-8")
    ran = re.search(r"`make test-cluster NODE=1`: on \S+, Kubernetes (\S+), etcd (\S+),", page)
    assert ran is not None
    assert ran.groups() == (KUBERNETES.version.removeprefix("v"), ETCD.version.removeprefix("v"))


def test_etcd_is_of_a_version_that_kubernetes_takes() -> None:
    """Kubernetes 1.34 and later ask for etcd 3.5.24 or later."""
    major, minor, *_ = ETCD.version.removeprefix("v").split(".")
    assert (int(major), int(minor)) >= (3, 6)
