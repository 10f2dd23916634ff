from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.pki import CertificateAuthority
from tests.sidecar.attach.harness import Attached, attached
from tests.sidecar.harness import Authorities


@pytest.fixture(scope="session")
def api_authority() -> CertificateAuthority:
    return CertificateAuthority.create("apis")


@pytest.fixture
async def a(
    tmp_path: Path, authorities: Authorities, api_authority: CertificateAuthority
) -> AsyncIterator[Attached]:
    async with attached(tmp_path, authorities, api_authority) as running:
        yield running
