from collections.abc import AsyncIterator

import pytest

from tests.integrations.asgi import Pod, shut_down


@pytest.fixture
async def sidecar() -> AsyncIterator[Pod]:
    async with (pod := Pod()).listening():
        yield pod
        for app in pod.apps:
            await shut_down(app)
