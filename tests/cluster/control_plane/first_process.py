"""The first process of a node: number 1 in its process namespace, whose end ends every container.

`python -m tests.cluster.control_plane.first_process PLAN` starts containerd, loads the images and
starts the kubelet, kube-proxy and CoreDNS. What these write outside the node's folder goes to
memory that nobody else sees.
"""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import sleep
from types import FrameType
from typing import Any, Final

from tests.cluster.control_plane.processes import Processes

# Sockets, network namespaces of pods, links to logs, addresses that the CNI has given.
_IN_MEMORY: Final = ("/run", "/var/log", "/var/lib/cni")
# Pods of one node meet on a bridge, where kube-proxy's rules would not see what they send.
_SWITCHED_ON: Final = ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables")
_CTR: Final = ("ctr", "--namespace", "k8s.io", "images")
_LOOK_SECONDS: Final = 1.0


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    path = Path(sys.argv[1])
    plan: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for folder in _IN_MEMORY:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tokenward", folder], check=True)
    for name in _SWITCHED_ON:
        Path("/proc/sys/net", name).write_text("1", "ascii")  # of this network namespace
    with Processes(path.parent) as processes:
        processes.start("containerd", ["containerd", "--config", plan["containerd_config"]])
        processes.wait_until("containerd", partial(_succeeds, "ctr", "version"))
        for image in plan["images"]:
            _load(**image)
        for name, command in plan["commands"].items():
            processes.start(name, command)
        while True:
            processes.check()
            sleep(_LOOK_SECONDS)


def _load(archive: str, name: str, names: list[str]) -> None:
    """Import the image under `name`, and make its other names known too."""
    subprocess.run([*_CTR, "import", archive], check=True)
    for other in names:
        subprocess.run([*_CTR, "tag", name, other], check=True)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
