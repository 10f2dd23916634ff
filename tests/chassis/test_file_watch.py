"""Files are followed by their state, and a fault is reported once."""

import asyncio
from pathlib import Path

import pytest

from chassis.file_watch import FileWatch, poll_forever


def test_a_changed_file_counts_until_it_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    watch = FileWatch(lambda: (file,))
    assert not watch.changed()
    file.write_text("one")
    assert watch.changed()
    assert watch.changed()
    watch.accept()
    assert not watch.changed()


def test_a_file_that_changes_while_it_is_read_counts_as_changed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    watch = FileWatch(lambda: (file,))
    file.write_text("one")
    assert watch.changed()
    file.write_text("longer")
    watch.accept()
    assert watch.changed()


def test_a_file_named_by_what_was_read_is_followed_from_then_on(tmp_path: Path) -> None:
    files = [tmp_path / "first"]
    watch = FileWatch(lambda: files)
    files[0].write_text("names the second")
    assert watch.changed()
    files.append(tmp_path / "second")
    watch.accept()
    assert not watch.changed()
    files[1].write_text("changed")
    assert watch.changed()


def test_a_fault_is_new_once_and_again_after_the_files_were_good(tmp_path: Path) -> None:
    file = tmp_path / "file"
    watch = FileWatch(lambda: (file,))
    assert watch.is_new_fault("empty")
    assert not watch.is_new_fault("empty")
    assert watch.is_new_fault("not PEM")
    assert watch.is_new_fault("empty")
    assert not watch.changed()
    assert watch.is_new_fault("empty")


async def test_an_unexpected_failure_of_one_poll_does_not_end_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    later = asyncio.Event()
    polls: list[int] = []

    async def poll() -> None:
        polls.append(1)
        if len(polls) == 1:
            raise OSError("the disk is on fire")
        later.set()

    task = asyncio.create_task(poll_forever(poll, interval=0))
    await later.wait()
    task.cancel()
    assert [record.msg for record in caplog.records] == ["poll_failed"]
    assert "fire" not in caplog.text
