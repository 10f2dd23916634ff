"""Which ids the storage is asked about."""

from typing import Any

import pytest

from authserver.clients.directory import ClientDirectory


class _Registered:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, client_id: str, now: float) -> None:
        self.asked.append(client_id)


@pytest.mark.parametrize("client_id", ["a\0b", "\0", "a\ud800b", "a\nb", "a\x7fb"])
async def test_an_id_that_a_database_may_refuse_is_nobodys_and_not_looked_up(
    client_id: str,
) -> None:
    """PostgreSQL refuses the whole statement, and everybody whose look-up is in it waits longer."""
    registered: Any = _Registered()
    nothing: Any = None
    directory = ClientDirectory([], registered, None, nothing)
    assert await directory.get(client_id, 0) is None
    assert await directory.get("tw-unknown ä", 0) is None
    assert registered.asked == ["tw-unknown ä"]
