"""The commands that `make fresh-machine` runs are those a newcomer reads first."""

from tests.fresh_machine.__main__ import PROJECT, readme_commands


def test_it_runs_the_readmes_two_commands() -> None:
    assert readme_commands((PROJECT / "README.md").read_text("utf-8")) == ["make demo", "make test"]
