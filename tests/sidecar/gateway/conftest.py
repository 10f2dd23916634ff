from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sidecar.gateway.harness import Gated, gated
from tests.sidecar.harness import Authorities


@pytest.fixture
async def g(tmp_path: Path, authorities: Authorities) -> AsyncIterator[Gated]:
    async with gated(tmp_path, authorities) as gate:
        yield gate
