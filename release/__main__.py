"""Build a release into a folder: `make release`, or `python -m release [--without-images]`."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chassis.version import VERSION
from release.checksums import UnfitSigningKey, sign, write_checksums
from release.install_manifests import write_manifests
from release.oci import (
    PROJECT,
    Image,
    TooLarge,
    ToolFailed,
    build_base,
    build_target,
    check_size,
    export,
)
from release.packages import build_packages
from release.sbom import write_sbom

# Each image with the most that its compressed layers may take, in bytes: every node pulls them.
TARGETS: Final = {
    "webhook": 80_000_000,
    "sidecar": 60_000_000,
    "authserver": 110_000_000,
    "controller": 110_000_000,
}
SIGNING_KEY: Final = "TOKENWARD_RELEASE_KEY"


def main() -> int:
    options = _options()
    folder = options.out / VERSION
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        files = list(_build(folder, options.registry, with_images=not options.without_images))
        signed = _sign(write_checksums(files, folder))
    except (TooLarge, ToolFailed, UnfitSigningKey) as failed:
        print(f"release: {failed}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as failed:
        print(f"release: {failed}\n{(failed.stderr or b'')[-2000:]!r}", file=sys.stderr)
        return 1
    for file in sorted(folder.iterdir()):
        print(f"{file.stat().st_size / 1e6:8.2f} MB  {file.relative_to(PROJECT.parent)}")
    print(signed)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "artefacts" / "release")
    parser.add_argument(
        "--registry",
        default="registry.example.com/tokenward",
        help="where the images will be pushed to; the manifests name it",
    )
    parser.add_argument(
        "--without-images",
        action="store_true",
        help="packages, SBOMs and checksums only; images and manifests need root and buildah",
    )
    return parser.parse_args()


def _build(folder: Path, registry: str, *, with_images: bool) -> Iterator[Path]:
    yield from build_packages(folder)
    for target in TARGETS:
        yield write_sbom(target, folder)
    if not with_images:
        print("images and install manifests are left out")
        return
    images = {target: _image(target, registry, folder) for target in TARGETS}
    yield from (image.archive for image in images.values())
    yield from write_manifests({name: image.by_digest for name, image in images.items()}, folder)


def _image(target: str, registry: str, folder: Path) -> Image:
    scratch = folder / "base"
    build_base(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    name = f"{registry}/{target}:{VERSION}"
    build_target(target, name)
    image = export(name, folder)
    check_size(image, TARGETS[target])
    return image


def _sign(checksums: Path) -> str:
    """Sign with the key in the environment, which is where a CI system puts its secrets."""
    pem = os.environ.pop(SIGNING_KEY, "")  # noqa: TID251 - this program has no settings file
    if not pem:
        return f"not signed: {SIGNING_KEY} holds no key"
    return f"signed: {sign(checksums, pem).name}"


if __name__ == "__main__":
    sys.exit(main())
