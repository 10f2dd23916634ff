"""What every test leaves behind: the logging that it found."""

import logging
from collections.abc import Iterator

import pytest

_LOGGERS = (logging.getLogger(), logging.getLogger("tokenward"))


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was() -> Iterator[None]:
    """A test that runs a command in this process has its logs configured, onto a captured stderr.

    The next test would write its audit events there, and every release would fail.
    """
    before = [(logger, logger.level) for logger in _LOGGERS]
    handlers = set(logging.root.handlers)
    yield
    for logger, level in before:
        logger.setLevel(level)
    for handler in logging.root.handlers[:]:
        if handler not in handlers and type(handler).__module__.startswith("chassis"):
            logging.root.removeHandler(handler)
    logging.captureWarnings(False)
