"""Container images with buildah, as OCI archives. No container registry is asked for anything."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
BASE: Final = "localhost/tokenward-base:trixie"

_BASE_PACKAGES: Final = "python3,python3-pip,python-is-python3,ca-certificates"
_CERTIFICATES: Final = "/etc/ssl/certs"
# Nothing of it runs in an image, and all of it would be in the first layer of each.
_NOT_SHIPPED: Final = (
    "var/cache/apt", "var/cache/debconf", "var/lib/apt/lists", "var/log", "usr/share/doc",
    "usr/share/info", "usr/share/locale", "usr/share/man", "usr/share/lintian",
    "usr/share/bash-completion",
)  # fmt: skip


class ToolFailed(Exception):
    """A tool ended with an error; the text is its command and what it said."""


class TooLarge(Exception):
    """An image is larger than its budget."""


@dataclass(frozen=True)
class Image:
    """An OCI archive; `digest` is the manifest's, as `sha256:…`."""

    name: str
    digest: str
    archive: Path

    @property
    def by_digest(self) -> str:
        return f"{self.name.rpartition(':')[0]}@{self.digest}"


def build_base(scratch: Path) -> None:
    """Build Debian with Python, unless it is there. It replaces the public Python image.

    Needs root and debootstrap. `scratch` is an empty folder.
    """
    if _is_known(BASE):
        return
    root = scratch / "base"
    options = ("--variant=minbase", f"--include={_BASE_PACKAGES}")
    subprocess.run(["debootstrap", *options, "trixie", root], check=True)
    for folder in _NOT_SHIPPED:
        shutil.rmtree(root / folder, ignore_errors=True)
    commit(BASE, root, "/usr/local/bin:/usr/bin:/bin", ["python3"])


def build_target(target: str, name: str) -> None:
    """Build one target of the Dockerfile on the base image, under `name`."""
    buildah(
        *("build", "--quiet", "--layers", "--target", target, "--network", "host"),
        *("--build-arg", f"BASE={BASE}", "--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"),
        *("--tag", name, str(PROJECT)),
    )


def commit(name: str, root: Path, path: str, entrypoint: Sequence[str]) -> None:
    """Make an image of a root folder; `path` is the variable PATH in it."""
    container = buildah("from", "scratch")
    try:
        buildah("copy", "--quiet", container, str(root), "/")
        start = json.dumps(list(entrypoint))
        buildah("config", "--env", f"PATH={path}", "--entrypoint", start, container)
        buildah("commit", "--quiet", container, name)
    finally:
        buildah("rm", container)


def export(name: str, folder: Path, *, compressed: bool = True) -> Image:
    """Write the image `name` to `folder`, as an OCI archive."""
    archive = folder / f"{name.rpartition('/')[2].replace(':', '-')}.tar"
    archive.unlink(missing_ok=True)  # buildah adds to an archive that is there
    options = [] if compressed else ["--disable-compression"]
    buildah("push", "--quiet", *options, name, f"oci-archive:{archive}:{name}")
    with tarfile.open(archive) as opened:
        index = opened.extractfile("index.json")
        assert index is not None
        return Image(name, json.load(index)["manifests"][0]["digest"], archive)


def check_size(image: Image, most: int) -> None:
    """Raise TooLarge where the compressed layers take more than `most` bytes."""
    with tarfile.open(image.archive) as archive:
        size = sum(member.size for member in archive)
    if size > most:
        raise TooLarge(f"{image.name}: {size / 1e6:.1f} MB, at most {most / 1e6:.0f} MB")


def buildah(*arguments: str) -> str:
    """What `buildah` prints. Raises ToolFailed with its last lines."""
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolFailed(f"buildah {arguments[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def _is_known(name: str) -> bool:
    command = ["buildah", "inspect", "--type", "image", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
