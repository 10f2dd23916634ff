"""The first build runs, users sign in, it is killed, and this build starts on its files.

Not part of `make test`: it needs the whole history. `make drills` runs it.
"""

from pathlib import Path

import pytest

from tests.upgrade.first_build import ROOT, Installation, extract, installation, is_in_history
from tests.upgrade.test_upgrade import (
    a_slip_costs_nobody_a_sign_in,
    login_behind,
    nobody_is_signed_out,
)

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not is_in_history(), reason="this clone has no whole history"),
]


async def upgraded(it: Installation, tree: Path) -> None:
    """Users sign in at the first build; it ends without a word and this build takes over."""
    await it.start(tree)
    await it.sign_in()
    assert await login_behind(it, "alice") == "alice"
    await it.kill()
    await it.start(ROOT)


async def test_a_live_installation_is_upgraded_and_loses_nobody(tmp_path: Path) -> None:
    tree, folder = extract(tmp_path / "tree"), tmp_path / "installation"
    folder.mkdir()
    async with installation(folder) as it:
        await upgraded(it, tree)
        # JWTs that the first build signed, and upstream tokens that are still good.
        for name in it.users:
            assert await login_behind(it, name) == name.split()[0]
        await nobody_is_signed_out(it)


async def test_a_slip_right_after_the_upgrade_costs_nobody_a_sign_in(tmp_path: Path) -> None:
    tree, folder = extract(tmp_path / "tree"), tmp_path / "installation"
    folder.mkdir()
    async with installation(folder) as it:
        await upgraded(it, tree)
        await a_slip_costs_nobody_a_sign_in(it)
