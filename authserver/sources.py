"""Where a request comes from, for counting only: never for deciding who somebody is."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import web


class Sources:
    """Forwarded addresses are believed of the listed proxies, and of nobody else."""

    def __init__(self, trusted_proxies: Iterable[str], *, behind_proxy: bool) -> None:
        self._trusted = tuple(ip_network(network) for network in trusted_proxies)
        self._unknown = behind_proxy and not self._trusted

    def of(self, request: web.BaseRequest) -> str | None:
        """The source; None where everybody comes through a proxy that nobody listed.

        An IPv6 source is its network of 64 bits, which one household has to itself.
        """
        if self._unknown:
            return None
        nearest = _address(request.remote or "")
        if nearest is not None and self._is_proxy(nearest):
            nearest = self._forwarded(request.headers.getall("X-Forwarded-For", [])) or nearest
        if isinstance(nearest, IPv6Address):
            return str(ip_network((nearest, 64), strict=False))
        return str(nearest)

    def _forwarded(self, headers: Sequence[str]) -> IPv4Address | IPv6Address | None:
        """The last address that no proxy of ours has; what stands before it may be made up."""
        for text in reversed(",".join(headers).split(",")):
            address = _address(text.strip())
            if address is None or not self._is_proxy(address):
                return address
        return None

    def _is_proxy(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
