"""Who is counted as one caller."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from authserver.public.connection_limits import ConnectionLimits, LimitedServer
from chassis.rate_limit_key import rate_limit_key, read_address


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("", "None"),
        ("unix", "None"),
        ("192.0.2.1, 192.0.2.2", "None"),
    ],
)
def test_a_source_is_an_address_or_a_network_of_a_household(text: str, source: str) -> None:
    assert rate_limit_key(read_address(text)) == source


class Line(asyncio.Transport):
    """A connection that somebody made to us."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 40000)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


async def test_a_household_has_the_connections_of_one_source() -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        raise AssertionError(request)

    server = LimitedServer(handler, connection_limits=ConnectionLimits(max_per_source=2))
    lines, handlers = [], []
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1", "192.0.2.1"):
        lines.append(Line(address))
        made: Any = server()
        made.connection_made(lines[-1])
        handlers.append(made)
    assert [line.aborted for line in lines] == [False, False, True, False, False]
    for made in handlers:
        made.connection_lost(None)
    await server.shutdown(1)
