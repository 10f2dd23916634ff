"""Clients that people use complete the main journey, each in its own process and environment.

The official SDK of version 2 walks it in `make demo` and in tests/demo too.
"""

from pathlib import Path

import pytest

from demo.layout import plan
from demo.material import write_material
from demo.processes import Processes
from demo.stack import start
from demo.upstream import USERS
from tests.interop.driving import CLIENTS, client_process
from tests.interop.environments import each_of

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("name", each_of(*CLIENTS))
async def test_a_client_completes_the_journey(tmp_path: Path, name: str) -> None:
    layout = plan(tmp_path)
    write_material(layout)
    async with Processes(tmp_path) as processes:
        await start(layout, processes)
        async with client_process(name, layout.servers[0].resource, tmp_path) as client:
            account = await client.whoami()
            again = await client.whoami()
    user = USERS["alice"]
    assert account == {"login": user.login, "id": user.id, "name": user.name}
    assert again == account
    assert client.sign_ins == 1
