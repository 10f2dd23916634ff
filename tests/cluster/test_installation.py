"""The whole overlay `self-managed`, installed and removed by the commands of its page."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.pods import named
from tests.manifests.rendering import render

_PAGE = Path(__file__).parents[2] / "docs/how-to/install.md"
_OVERLAY = "my-overlay"  # as the page calls it

pytestmark = pytest.mark.skipif(
    "TOKENWARD_TEST_DISPOSABLE" not in os.environ,  # noqa: TID251 - how a person says it
    reason="installs into the whole cluster",
)


class Installation:
    """The overlay, and the page's commands for it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self.size = len(render("overlays/self-managed", folder))
        self._overlay = str(folder / "manifests/overlays/self-managed")

    def apply(self) -> None:
        (command,) = (one for one in _commands("## 3. Apply") if "apply -k" in one)
        self._run(command)

    def remove(self) -> None:
        """Without the page's pause: there is one API server, and it answers these commands."""
        for command in _commands("## Remove"):
            if command.startswith("kubectl "):
                self._run(command)

    def found(self) -> list[str]:
        """The names of its objects that the API server has."""
        told = self._cluster.run("get", "-k", self._overlay, "--ignore-not-found", "-o", "name")
        return told.split()

    def _run(self, command: str) -> None:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "kubectl"
        self._cluster.run(*(self._overlay if a == _OVERLAY else a for a in arguments))


def _commands(heading: str) -> list[str]:
    """The lines of the first block of commands under a heading of the page."""
    section = _PAGE.read_text("utf-8").partition(heading)[2]
    return section.partition("```sh\n")[2].partition("```")[0].splitlines()


@pytest.fixture
def installation(cluster: Cluster, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(cluster, tmp_path)
    made.apply()
    yield made
    if made.found():
        made.remove()


def test_it_is_removed_as_the_page_says_and_installed_again(
    installation: Installation, cluster: Cluster
) -> None:
    assert len(installation.found()) == installation.size
    waiting = named("waiting")
    eventually(lambda: cluster.refusal(waiting), lambda told: "failed calling webhook" in told)
    installation.remove()
    assert installation.found() == []
    eventually(lambda: cluster.refusal(waiting), lambda told: told == "")
    installation.apply()
    assert len(installation.found()) == installation.size
