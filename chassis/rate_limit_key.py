"""Addresses of callers, for counting and for networks: never for deciding who somebody is."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address


def read_address(text: str) -> Address | None:
    """An IP address; one of IPv4 that a socket for both families shows as IPv6 is itself again."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def rate_limit_key(address: Address | None) -> str:
    """Whom to count a caller as: with IPv6 the network of 64 bits, which one household has."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)
