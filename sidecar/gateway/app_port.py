"""Whether others reach the app past the gateway: most apps listen on every address.

A neighbour pod could then call the app's own port, with an `X-Tokenward-User` of its choice.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final

from chassis.clock import Clock
from chassis.logs import Log

_log = Log("gateway")

CHECK_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 1.0
_MOST_ADDRESSES: Final = 8

# Addresses for documentation (RFC 5737, RFC 3849): a datagram socket finds its own end of the
# route there, and sends nothing.
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_addresses() -> set[str]:
    """The addresses of this machine or pod from which others are reached."""
    addresses = set()
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            addresses.add(str(probe.getsockname()[0]))
    return addresses


class AppPortCheck:
    """Tries the app's port at the pod's own addresses, every half minute."""

    def __init__(
        self, port: int, *, now: Clock, addresses: Callable[[], Iterable[str]] = own_addresses
    ) -> None:
        self._port, self._now, self._addresses = port, now, addresses
        self._reached: set[str] = set()
        self._due = 0.0
        self._running: asyncio.Task[None] | None = None
        self.open = False

    def reached_at(self, address: str) -> None:
        """Somebody reached the gateway at this address of the pod."""
        if len(self._reached) < _MOST_ADDRESSES:
            self._reached.add(address)

    @property
    def never_ran(self) -> bool:
        return self._due == 0.0

    def poll(self) -> None:
        """Begin a check where one is due."""
        if self._now() >= self._due and self._running is None:
            self._running = asyncio.create_task(self.run())
            self._running.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.failure("app_port_check_failed", error)

    async def run(self) -> None:
        """Try every address now."""
        self._due = self._now() + CHECK_SECONDS
        addresses = {*self._addresses(), *self._reached}
        tried = sorted(address for address in addresses if not _is_loopback(address))
        answers = await asyncio.gather(*(_answers(address, self._port) for address in tried))
        if any(answers) != self.open:
            self.open = any(answers)
            if self.open:
                _log.warning("app_port_open", port=self._port)
            else:
                _log.info("app_port_closed", port=self._port)

    def close(self) -> None:
        if self._running is not None:
            self._running.cancel()


async def _answers(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _is_loopback(address: str) -> bool:
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return True  # no address at all
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback
