"""Leaving time to others while a mass of small steps is done beside them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_MAX_REST_SECONDS: Final = 0.1


@asynccontextmanager
async def paced(rests: float, *, at_least: float = 0.0) -> AsyncIterator[None]:
    """Rest after the block, `rests` times as long as it took: `at_least` to 0.1 seconds."""
    started = time.perf_counter()
    yield
    took = time.perf_counter() - started
    await asyncio.sleep(min(max(rests * took, at_least), _MAX_REST_SECONDS))
