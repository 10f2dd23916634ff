"""Container images for the node, built with buildah: no registry is asked for any."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAUSE: Final = "registry.example.com/tests/pause:1"
BUSYBOX: Final = "registry.example.com/tests/busybox:1"
SIDECAR: Final = "registry.example.com/tokenward/sidecar:dev"

_ROOT: Final = Path(__file__).resolve().parents[3]
_BASE: Final = "localhost/tokenward-base:trixie"
_BASE_PACKAGES: Final = "python3,python3-pip,python-is-python3,ca-certificates"
_CERTIFICATES: Final = "/etc/ssl/certs"


@dataclass(frozen=True)
class Image:
    """An OCI archive; `digest` is the manifest's, as `sha256:…`."""

    name: str
    digest: str
    archive: Path

    @property
    def by_digest(self) -> str:
        return f"{self.name.rpartition(':')[0]}@{self.digest}"


def build_images(folder: Path, scratch: Path) -> dict[str, Image]:
    """The sidecar, busybox and the pause image by name, as archives in `folder`.

    Needs root, buildah, Debian's busybox-static and, for the first time, debootstrap.
    """
    _build_base(scratch)
    _buildah(
        *("build", "--quiet", "--layers", "--target", "sidecar", "--network", "host"),
        *("--build-arg", f"BASE={_BASE}", "--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"),
        *("--tag", SIDECAR, str(_ROOT)),
    )
    busybox = _busybox_root(scratch)
    _commit(BUSYBOX, busybox, "/bin", ["sh"])
    _commit(PAUSE, busybox, "/bin", ["tail", "-f", "/dev/null"])
    return {name: _export(name, folder) for name in (SIDECAR, BUSYBOX, PAUSE)}


def _build_base(scratch: Path) -> None:
    """Debian with Python in place of the public image, which no registry can be asked for."""
    if _known(_BASE):
        return
    root = scratch / "base"
    options = ("--variant=minbase", f"--include={_BASE_PACKAGES}")
    subprocess.run(["debootstrap", *options, "trixie", root], check=True)
    for left in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / left)
    _commit(_BASE, root, "/usr/local/bin:/usr/bin:/bin", ["python3"])


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


def _commit(name: str, root: Path, path: str, entrypoint: Sequence[str]) -> None:
    """Make an image of a root folder; `path` is the variable PATH in it."""
    container = _buildah("from", "scratch")
    try:
        _buildah("copy", "--quiet", container, str(root), "/")
        start = json.dumps(list(entrypoint))
        _buildah("config", "--env", f"PATH={path}", "--entrypoint", start, container)
        _buildah("commit", "--quiet", container, name)
    finally:
        _buildah("rm", container)


def _export(name: str, folder: Path) -> Image:
    archive = folder / f"{name.rpartition('/')[2].replace(':', '-')}.tar"
    _buildah("push", "--quiet", name, f"oci-archive:{archive}:{name}")
    with tarfile.open(archive) as opened:
        index = opened.extractfile("index.json")
        assert index is not None
        return Image(name, json.load(index)["manifests"][0]["digest"], archive)


def _known(name: str) -> bool:
    command = ["buildah", "inspect", "--type", "image", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()
