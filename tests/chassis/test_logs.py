"""Logs are JSON lines that no input can break out of, and into which no secret finds a way."""

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chassis import logs

Lines = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """What is written while something is done, line by line."""

    def during(act: Callable[[], None], level: str = "debug") -> list[dict[str, Any]]:
        root = logging.getLogger()
        handlers, root_level = root.handlers[:], root.level
        logs.configure("test", level)
        try:
            act()
        finally:
            root.handlers[:] = handlers
            root.setLevel(root_level)
            logging.getLogger("tokenward").setLevel(logging.NOTSET)
            logging.captureWarnings(False)
        written = capsys.readouterr().err
        assert written.isascii()
        return [json.loads(line) for line in written.splitlines()]

    return during


log = logs.Log("here")


def test_an_event_is_one_line_with_time_level_and_source(lines: Lines) -> None:
    (line,) = lines(
        lambda: log.info("happened", port=8080, ready=True, missing=None, names=("a", "b"))
    )
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "process": "test", "event": "happened", "source": "here", "port": 8080,
        "ready": True, "missing": None, "names": ["a", "b"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["a\nb", '{"level": "info"}\n{"event": "forged"}', "\r\n", "\u202egnp.exe", "\x1b[31m", "\0",
     "\u2028", "\ud800", '"', "é"],
    ids=ascii,
)  # fmt: skip
def test_no_text_breaks_out_of_its_line(lines: Lines, text: str) -> None:
    (line,) = lines(lambda: log.warning("happened", told=text))
    assert (line["event"], line["told"]) == ("happened", text)


def test_a_text_is_cut(lines: Lines) -> None:
    (line,) = lines(lambda: log.warning("happened", told="x" * 10_000, more=["y" * 10_000] * 1000))
    assert line["told"] == "x" * 200
    assert line["more"] == ["y" * 200] * 50


def test_what_is_no_plain_value_is_named_by_its_type_only(lines: Lines) -> None:
    (line,) = lines(
        lambda: log.warning("happened", a={"token": "canary"}, b=b"canary", c=ValueError("canary"))
    )
    assert (line["a"], line["b"], line["c"]) == ("<dict>", "<bytes>", "<ValueError>")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_does_not_break_a_line(lines: Lines, number: float) -> None:
    assert lines(lambda: log.warning("happened", number=number))[0]["number"] is None


def test_a_field_does_not_pose_as_another(lines: Lines) -> None:
    (line,) = lines(
        lambda: log.warning(
            "happened", time="forged", level="forged", process="forged", source="forged"
        )
    )
    assert "forged" not in (line["time"], line["level"], line["process"], line["source"])


def fail_with(secret: str) -> None:
    held = secret
    raise ValueError(f"it was {held}")


def test_an_exception_is_told_without_its_words_and_locals(lines: Lines) -> None:
    def act() -> None:
        try:
            fail_with("canary")
        except ValueError as error:
            log.failure("broke", error)

    (line,) = lines(act)
    assert line["error"] == "ValueError"
    assert any("fail_with" in frame for frame in line["trace"])
    assert "canary" not in json.dumps(line)


def test_a_librarys_record_keeps_the_constant_part_only(lines: Lines) -> None:
    def act() -> None:
        library = logging.getLogger("aiohttp.server")
        library.error("request %s failed", "canary")
        library.error("it was canary")
        try:
            fail_with("canary")
        except ValueError:
            library.exception("Error handling request from %s", "canary")

    found = lines(act)
    assert [line["event"] for line in found] == ["library_message"] * 3
    assert found[0]["message"] == "request %s failed"
    assert "message" not in found[1]
    assert found[2]["error"] == "ValueError"
    assert "canary" not in json.dumps(found)


def test_libraries_are_heard_from_a_warning_up(lines: Lines) -> None:
    assert lines(lambda: logging.getLogger("aiohttp").info("%s", "chatter")) == []
    assert lines(lambda: logging.getLogger("asyncio").debug("%s", "chatter")) == []


def test_a_request_id_is_on_every_line_of_its_scope(lines: Lines) -> None:
    def act() -> None:
        with logs.request_scope("r1"):
            log.info("inside")
            assert logs.current_request_id() == "r1"
        log.info("outside")

    inside, outside = lines(act)
    assert inside["request_id"] == "r1"
    assert "request_id" not in outside


@pytest.mark.parametrize("level", logs.LEVELS)
def test_what_is_below_the_level_is_not_written(lines: Lines, level: str) -> None:
    def act() -> None:
        for say in (log.debug, log.info, log.warning, log.error):
            say("happened")

    heard = logs.LEVELS[logs.LEVELS.index(level) :]
    assert [line["level"] for line in lines(act, level)] == [*heard]


@pytest.mark.parametrize("level", logs.LEVELS)
def test_what_must_be_written_is_written_at_every_level(lines: Lines, level: str) -> None:
    (line,) = lines(lambda: log.write_or_raise(logging.INFO, "done", count=1), level)
    assert (line["level"], line["event"], line["source"], line["count"]) == (
        "info", "done", "here", 1,
    )  # fmt: skip


@pytest.mark.parametrize("others", [[], [logging.NullHandler()]], ids=["alone", "beside another"])
def test_only_what_must_be_written_is_missed(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, others: list[logging.Handler]
) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    def act() -> None:
        (handler,) = logging.getLogger().handlers
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(Gone())
        logging.getLogger().handlers += others
        monkeypatch.setattr(logging, "raiseExceptions", False)
        log.error("happened")
        with pytest.raises(logs.LogWriteFailed):
            log.write_or_raise(logging.INFO, "done")
        handler.stream = io.StringIO()

    lines(act)


def test_a_line_is_the_same_whether_or_not_somebody_else_listens(lines: Lines) -> None:
    heard: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)

    def act() -> None:
        with logs.request_scope("r1"):
            for _ in range(2):
                log.warning("happened", told="x" * 300, port=1, ready=False, missing=None, at=[0.5])
                logging.getLogger().addHandler(Listener())

    alone, beside = lines(act)
    assert len(heard) == 1
    assert alone.pop("time") <= beside.pop("time")
    assert list(alone.items()) == list(beside.items())


def test_a_stream_that_takes_no_more_stops_nobody(lines: Lines, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as closed:
        pass

    def act() -> None:
        before, sys.stderr = sys.stderr, closed
        try:
            logs.configure("test")
        finally:
            sys.stderr = before
        log.info("happened")

    assert lines(act) == []
