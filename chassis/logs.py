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
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

_encode: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False).encode
_MAX_TEXT: Final = 200
_MAX_FRAMES: Final = 12
_OURS: Final = "tokenward"

LEVELS: Final = ("debug", "info", "warning", "error")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


@contextmanager
def request_scope(request_id: str) -> Iterator[None]:
    """Put `request_id` on every line logged by this task until the block ends."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def current_request_id() -> str | None:
    return _request_id.get()


class LogLost(Exception):
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

    def must(self, level: int, event: str, /, **fields: object) -> None:
        """Write at any level the process is set to. Raises LogLost where the line did not go out.

        Every other line that cannot be written is dropped, as logging does it.
        """
        extra = {"fields": fields, "must": True}
        logger = self._logger
        logger.handle(logger.makeRecord(logger.name, level, "", 0, event, (), None, extra=extra))

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


def configure(process: str, level: str = "info") -> None:
    """Send every record of this process to stderr as one JSON line; `level` is one of LEVELS."""
    handler = _Lines(sys.stderr)
    handler.setFormatter(_JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(True)


class _Lines(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        if getattr(record, "must", False):
            raise LogLost from sys.exc_info()[1]
        super().handleError(record)


class _JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            line |= _foreign(record)
        else:
            line |= {"event": record.msg, "source": record.name.removeprefix(f"{_OURS}.")}
            line |= {name: _plain(value) for name, value in fields.items() if name not in line}
        if (request_id := _request_id.get()) is not None:
            line.setdefault("request_id", request_id)
        return _encode(line)


def _foreign(record: logging.LogRecord) -> dict[str, Any]:
    """A library's record: the constant part of its message, and the exception's type and path."""
    described: dict[str, Any] = {"event": "library_message", "source": record.name}
    if record.args:
        described["message"] = str(record.msg)[:_MAX_TEXT]
    if record.exc_info and record.exc_info[1] is not None:
        described |= _describe(record.exc_info[1])
    return described


def _describe(error: BaseException) -> dict[str, object]:
    return {"error": type(error).__name__, "trace": _trace(error.__traceback__)}


def _trace(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_MAX_FRAMES:]
    return [f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.name}" for frame in frames]


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
