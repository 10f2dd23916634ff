"""A network namespace for one node, joined to this host by a pair of virtual interfaces."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# From the blocks for documentation (RFC 5737) and benchmarks (RFC 2544): nobody routes them.
_HOST_ADDRESS: Final = "198.51.100.1"
_NODE_ADDRESS: Final = "198.51.100.2"
_POD_RANGE: Final = "198.18.0.0/24"


@dataclass(frozen=True)
class NodeNetwork:
    """The node's namespace, and the two ends of its only link."""

    name: str
    host_address: str
    node_address: str
    pod_range: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name


@contextmanager
def node_network() -> Iterator[NodeNetwork]:
    """Make the namespace; it goes at the end, with the link. Needs root.

    This host reaches the pods, and pods reach this host; nothing is forwarded beyond it.
    """
    suffix = secrets.token_hex(3)
    network = NodeNetwork(f"tokenward-{suffix}", _HOST_ADDRESS, _NODE_ADDRESS, _POD_RANGE)
    link, inside = f"tw{suffix}", ("-n", network.name)
    with ExitStack() as undo:
        _ip("netns", "add", network.name)
        undo.callback(_ip, "netns", "delete", network.name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", network.name)
        undo.callback(_ip, "link", "delete", link)
        _ip("address", "add", f"{_HOST_ADDRESS}/30", "dev", link)
        _ip("link", "set", link, "up")
        _ip("route", "add", _POD_RANGE, "via", _NODE_ADDRESS)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "address", "add", f"{_NODE_ADDRESS}/30", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "route", "add", "default", "via", _HOST_ADDRESS)
        yield network


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
