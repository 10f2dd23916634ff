"""A controller of these tests has its cluster in memory, so nobody needs to wait for its timers."""

from asyncio import AbstractEventLoop, new_event_loop
from collections.abc import Callable, Mapping

import pytest

from tests.support.virtual_time import VirtualTimeLoop

# It starts an authserver, which listens on sockets.
_REAL_TIME = ("test_takeover.py",)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    if item.path.name in _REAL_TIME:
        return {"real_time": new_event_loop}
    return {"virtual_time": VirtualTimeLoop}
