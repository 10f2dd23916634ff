"""What every test leaves behind: the logging that it found. How many tests run at once."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest

# jsonschema would build 38 grammars for a format that no schema of ours names, in every worker.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

_LOGGERS = (logging.getLogger(), logging.getLogger("tokenward"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For `-n auto`: two for each core, for tests often wait for what they started."""
    return 2 * (os.cpu_count() or 1)


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
