"""What this host must have before a node can be started."""

import os
import shutil
from typing import Final

from tests.cluster.control_plane.programs import CannotBuild

_PROGRAMS: Final = (
    "buildah", "busybox", "containerd", "ctr", "debootstrap", "ip", "iptables", "nsenter", "runc",
    "unshare",
)  # fmt: skip


def check_node_requirements(user_id: int | None = None) -> None:
    """Raises CannotBuild with everything that is missing; `user_id` is that of this process."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    problems = [f"missing programs: {', '.join(missing)}"] if missing else []
    if (os.geteuid() if user_id is None else user_id) != 0:
        problems.append("only root may make namespaces and control groups")
    if problems:
        page = "docs/reference/cluster-tests.md"
        raise CannotBuild(f"no node can be started here: {'; '.join(problems)} (see {page})")
