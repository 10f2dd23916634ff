from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sidecar.harness import Authorities, Rig, rig


@pytest.fixture(scope="session")
def authorities() -> Authorities:
    return Authorities.create()


@pytest.fixture
async def r(tmp_path: Path, authorities: Authorities) -> AsyncIterator[Rig]:
    async with rig(tmp_path, authorities) as running:
        yield running
