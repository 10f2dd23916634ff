from pathlib import Path

import pytest

from tests.cluster.control_plane import requirements
from tests.cluster.control_plane.programs import CannotBuild
from tests.cluster.control_plane.requirements import check_node_requirements

ROOT, SOMEBODY = 0, 1000


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is searched, with every program that a node needs."""
    for name in requirements._PROGRAMS:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_root_with_every_program_may_start_a_node(programs: Path) -> None:
    check_node_requirements(ROOT)


def test_each_missing_program_is_named_at_once(programs: Path) -> None:
    (programs / "runc").unlink()
    (programs / "buildah").unlink()
    with pytest.raises(CannotBuild, match=r"missing programs: buildah, runc \("):
        check_node_requirements(ROOT)


def test_nobody_but_root_may_start_a_node(programs: Path) -> None:
    with pytest.raises(CannotBuild, match="only root"):
        check_node_requirements(SOMEBODY)
