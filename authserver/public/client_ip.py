"""Where a request comes from, for counting only: never for deciding who somebody is."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Final

from aiohttp import web

from chassis.rate_limit_key import Address, rate_limit_key, read_address

# Where all callers come through one proxy that nobody listed, they share each limit, so many
# times as large.
_SHARED_FACTOR: Final = 20


class Sources:
    """Forwarded addresses are believed of the listed proxies, and of nobody else.

    `shared`: everybody comes through a proxy that nobody listed, so that all have one source, the
    proxy's address. Limits by source are then `factor` times as large.
    """

    def __init__(self, trusted_proxies: Iterable[str], *, behind_proxy: bool) -> None:
        self._trusted = tuple(ip_network(network) for network in trusted_proxies)
        self.shared = behind_proxy and not self._trusted
        self.factor = _SHARED_FACTOR if self.shared else 1

    def of(self, request: web.BaseRequest) -> str:
        nearest = read_address(request.remote or "")
        if nearest is not None and self._is_proxy(nearest):
            nearest = self._forwarded(request.headers.getall("X-Forwarded-For", [])) or nearest
        return rate_limit_key(nearest)

    def _forwarded(self, headers: Sequence[str]) -> Address | None:
        """The last address that no proxy of ours has; what stands before it may be made up."""
        for text in reversed(",".join(headers).split(",")):
            address = read_address(text.strip())
            if address is None or not self._is_proxy(address):
                return address
        return None

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)
