"""A sidecar process that meets more JWTs than it may remember; `make bench` shows it 100,000."""

from pathlib import Path

import pytest

from tests.bench.memory import MAX_TOKENS, busy_sidecar, jwts

LARGE = 6_000  # bytes: were JWTs kept, they alone would be more than the bound
MAX_MEGABYTES = 40.0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
async def test_memory_stops_growing_however_many_jwts_come_by(tmp_path: Path) -> None:
    async with busy_sidecar(tmp_path) as sidecar:
        await sidecar.meet(jwts(0, 100, LARGE))
        before = sidecar.megabytes()
        await sidecar.meet(jwts(100, MAX_TOKENS + 500, LARGE))
        assert await sidecar.entries() == MAX_TOKENS
        assert sidecar.megabytes() - before < MAX_MEGABYTES
