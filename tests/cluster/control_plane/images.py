"""The container images of the cluster tests: all of ours, and two small ones with busybox."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from release.oci import Image, build_base, build_target, commit, export

PAUSE: Final = "registry.example.com/tests/pause:1"
BUSYBOX: Final = "registry.example.com/tests/busybox:1"
SIDECAR: Final = "registry.example.com/tokenward/sidecar:dev"

_TARGETS: Final = ("sidecar", "webhook", "authserver", "controller", "demo")


def build_images(folder: Path, scratch: Path) -> dict[str, Image]:
    """Our images, busybox and the pause image by name, as archives in `folder`.

    Needs root, buildah, Debian's busybox-static and, for the first time, debootstrap.
    """
    build_base(scratch)
    ours = [f"registry.example.com/tokenward/{target}:dev" for target in _TARGETS]
    for target, name in zip(_TARGETS, ours, strict=True):
        build_target(target, name)
    busybox = _busybox_root(scratch)
    commit(BUSYBOX, busybox, "/bin", ["sh"])
    commit(PAUSE, busybox, "/bin", ["tail", "-f", "/dev/null"])
    return {name: export(name, folder, compressed=False) for name in (*ours, BUSYBOX, PAUSE)}


def _busybox_root(scratch: Path) -> Path:
    """A root folder with busybox, and a link to it for each program that it is."""
    program = shutil.which("busybox")
    if program is None:
        raise FileNotFoundError("busybox")
    folder = scratch / "busybox" / "bin"
    folder.mkdir(parents=True)
    shutil.copy(program, folder / "busybox")
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in set(listed.split()) - {"busybox"}:
        (folder / applet).symlink_to("busybox")
    return folder.parent
