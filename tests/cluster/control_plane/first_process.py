"""The first process of a node: number 1 in its process namespace, whose end ends every container.

`python -m tests.cluster.control_plane.first_process PLAN` starts containerd, loads the images and
starts the kubelet. What these write outside the node's folder goes to memory that nobody else sees.
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
_CTR: Final = ("ctr", "--namespace", "k8s.io", "images")
_LOOK_SECONDS: Final = 1.0


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    path = Path(sys.argv[1])
    plan: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for folder in _IN_MEMORY:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tokenward", folder], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", "ascii")  # of this network namespace
    with Processes(path.parent) as processes:
        processes.start("containerd", ["containerd", "--config", plan["containerd_config"]])
        processes.wait_until("containerd", partial(_succeeds, "ctr", "version"))
        for image in plan["images"]:
            _load(**image)
        processes.start("kubelet", plan["kubelet_command"])
        while True:
            processes.check()
            sleep(_LOOK_SECONDS)


def _load(archive: str, name: str, digest: str) -> None:
    """Pods name an image by tag or by digest; the second has to be made known too."""
    subprocess.run([*_CTR, "import", archive], check=True)
    repository = name.rpartition(":")[0]
    subprocess.run([*_CTR, "tag", name, f"{repository}@{digest}"], check=True)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
