from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sidecar.harness import Authorities, Harness, harness


@pytest.fixture(scope="session")
def authorities() -> Authorities:
    return Authorities.create()


@pytest.fixture
async def r(tmp_path: Path, authorities: Authorities) -> AsyncIterator[Harness]:
    async with harness(tmp_path, authorities) as running:
        yield running
