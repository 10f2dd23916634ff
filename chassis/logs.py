"""JSON lines on stderr, one event a line, built so that a secret has no way in.

Fields are named by the caller and hold plain values; anything else is written as its type's
name. Texts are ASCII-escaped (so no line breaks or bidirectional overrides reach a terminal)
and cut. An exception is logged as its type and the places it passed, never its message or
locals: both may hold what a user or an upstream sent. Records of libraries keep their
unformatted message only.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from types import TracebackType
from typing import Final, TextIO

from chassis import clock

_encode: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode
_MAX_TEXT: Final = 200
_MAX_FRAMES: Final = 12
_OURS: Final = "tokenward"
_ON_EVERY_LINE: Final = frozenset({"time", "level", "process", "event", "source"})

# Nobody reads, the stream is closed, or there was none from the start.
_UNWRITABLE: Final = (OSError, ValueError, AttributeError)

LEVELS: Final = ("debug", "info", "warning", "error")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class request_scope:
    """Put `request_id` on every line logged by this task until the block ends."""

    __slots__ = ("_before", "_request_id")

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def __enter__(self) -> None:
        self._before = _request_id.set(self._request_id)

    def __exit__(self, *_: object) -> None:
        _request_id.reset(self._before)


def current_request_id() -> str | None:
    return _request_id.get()


class LogWriteFailed(Exception):
    """A line that had to be written could not be."""


class Log:
    """A named source of events: `log.info("listening", port=8080)`."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{_OURS}.{name}")

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def failure(self, event: str, error: BaseException, **fields: object) -> None:
        """Log an unexpected exception: its type and where it passed, without its words."""
        self._write(logging.ERROR, event, fields | _describe(error))

    def write_or_raise(self, level: int, event: str, /, **fields: object) -> None:
        """Write one line at `level`. Raises LogWriteFailed if the line was not written.

        Every other line that cannot be written is dropped, as logging does it.
        """
        logger = self._logger
        if (lines := _sole_listener()) is not None:
            line = lines.line(clock.wall(), level, logger.name, event, fields)
            try:
                lines.put(line)
            except _UNWRITABLE as error:
                raise LogWriteFailed from error
        else:
            extra = {"fields": fields, "must": True}
            record = logger.makeRecord(logger.name, level, "", 0, event, (), None, extra=extra)
            logger.handle(record)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        if (lines := _sole_listener()) is not None:
            line = lines.line(clock.wall(), level, self._logger.name, event, fields)
            with suppress(*_UNWRITABLE):
                lines.put(line)
        else:
            self._logger.log(level, event, extra={"fields": fields})


def configure(process: str, level: str = "info") -> None:
    """Send every record of this process to stderr as one JSON line; `level` is one of LEVELS."""
    root = logging.getLogger()
    root.handlers[:] = [_JsonLines(process)]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(True)


class _JsonLines(logging.StreamHandler[TextIO]):
    """Writes records, and our own events without the detour of making records of them."""

    def __init__(self, process: str) -> None:
        super().__init__(sys.stderr)
        self._process = process

    def put(self, line: str) -> None:
        """A whole line in one write. Raises one of `_UNWRITABLE` where it did not go out."""
        self.stream.write(f"{line}\n")
        self.stream.flush()

    def handleError(self, record: logging.LogRecord) -> None:
        if getattr(record, "must", False):
            raise LogWriteFailed from sys.exc_info()[1]
        super().handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        fields, event = getattr(record, "fields", None), str(record.msg)
        if fields is None:
            fields, event = _foreign(record), "library_message"
        return self.line(record.created, record.levelno, record.name, event, fields)

    def line(
        self, now: float, level: int, name: str, event: str, fields: Mapping[str, object]
    ) -> str:
        """An event as JSON, without a line break."""
        if not _ON_EVERY_LINE.isdisjoint(fields):
            fields = {field: fields[field] for field in fields if field not in _ON_EVERY_LINE}
        if "request_id" not in fields and (request_id := _request_id.get()) is not None:
            fields = {**fields, "request_id": request_id}
        members = [
            f"{_name(field)}{_text(value[:_MAX_TEXT]) if type(value) is str else _json(value)}"
            for field, value in fields.items()
        ]
        constant = _constant_part(level, self._process, event, name)
        return f'{{"time": "{_time(now)}", {constant}{"".join(members)}}}'


def _sole_listener() -> _JsonLines | None:
    """Our handler; None while somebody else listens too and must get records: a test, a host."""
    handlers = logging.root.handlers
    only = handlers[0] if len(handlers) == 1 else None
    return only if isinstance(only, _JsonLines) else None


def _time(now: float) -> str:
    milliseconds = int(now * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}+00:00"


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    """Rendered once for all lines of a second: it costs as much as the rest of a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=256)
def _name(field: str) -> str:
    """What stands before a field's value; a process has some dozens of fields."""
    return f", {_text(field)}: "


@lru_cache(maxsize=256)
def _constant_part(level: int, process: str, event: str, name: str) -> str:
    """What every line of one kind has in common; a process has some dozens of kinds."""
    level_name, source = logging.getLevelName(level).lower(), name.removeprefix(f"{_OURS}.")
    parts = {"level": level_name, "process": process, "event": event, "source": source}
    return ", ".join(f'"{field}": {_text(text)}' for field, text in parts.items())


def _foreign(record: logging.LogRecord) -> dict[str, object]:
    """A library's record: the constant part of its message, and the exception's type and path."""
    described: dict[str, object] = {}
    if record.args:
        described["message"] = str(record.msg)
    if record.exc_info and record.exc_info[1] is not None:
        described |= _describe(record.exc_info[1])
    return described


def _describe(error: BaseException) -> dict[str, object]:
    return {"error": type(error).__name__, "trace": _trace(error.__traceback__)}


def _trace(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_MAX_FRAMES:]
    return [f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.name}" for frame in frames]


def _json(value: object) -> str:
    """A field's value as JSON; the commonest kinds need no encoder of the library's."""
    match value:
        case str():
            return _text(value[:_MAX_TEXT])
        case True:
            return "true"
        case False:
            return "false"
        case _:
            return _encode(_plain(value))


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if abs(value) < 1e15 else None  # NaN fails the comparison
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in list(value)[:50]]
    return f"<{type(value).__name__}>"
