"""One `install-OVERLAY.yaml` for each overlay that holds no secret, with images by digest."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from release.oci import PROJECT

# `dev` is not here: its certificates are made on the operator's machine, and a private key that
# everybody can download is none. `example` is a template to copy.
OVERLAYS: Final = ("production", "quickstart")

# Images that a configuration file names: kustomize knows those of containers only. Each overlay
# has those whose process it configures.
_PLACEHOLDERS: Final = {
    "sidecar": re.compile(r"^(\s*image: )\S+/tokenward/sidecar@sha256:0{64}$", re.MULTILINE),
    "authserver": re.compile(r"^(\s*authserverImage: )tokenward/authserver\S*$", re.MULTILINE),
}
_NAMED_IN: Final = {"production": ("sidecar",), "quickstart": ("sidecar", "authserver")}


class NoPlaceholder(Exception):
    """A rendered overlay has no line, or several, to put the digest of this image into."""


def write_manifests(images: Mapping[str, str], folder: Path) -> list[Path]:
    """Render each overlay; `images` maps `webhook`, `sidecar`, … to `registry/name@sha256:…`."""
    copy = folder / "work" / "manifests"
    shutil.copytree(PROJECT / "manifests", copy, ignore=shutil.ignore_patterns("generated", "keys"))
    written = [_render(copy, overlay, images, folder) for overlay in OVERLAYS]
    shutil.rmtree(copy.parent)
    return written


def pinned(rendered: str, overlay: str, images: Mapping[str, str]) -> str:
    """The overlay's objects with the digests that its configuration files name.

    Raises NoPlaceholder.
    """
    for name in _NAMED_IN[overlay]:
        rendered, count = _PLACEHOLDERS[name].subn(rf"\g<1>{images[name]}", rendered)
        if count != 1:
            raise NoPlaceholder(f"{overlay}: {count} lines for {name}")
    return rendered


def _render(copy: Path, overlay: str, images: Mapping[str, str], folder: Path) -> Path:
    around = copy / "release" / overlay
    around.mkdir(parents=True)
    kustomization = {
        "resources": [f"../../overlays/{overlay}"],
        "images": [
            {"name": f"tokenward/{name}", "newName": base, "digest": digest}
            for name, (base, _, digest) in ((n, i.partition("@")) for n, i in images.items())
        ],
    }
    (around / "kustomization.yaml").write_text(json.dumps(kustomization), "utf-8")
    kubectl = Path(sys.executable).with_name("kubectl")
    rendered = subprocess.run(
        [kubectl, "kustomize", around], check=True, capture_output=True, text=True
    ).stdout
    path = folder / f"install-{overlay}.yaml"
    path.write_text(pinned(rendered, overlay, images), "utf-8")
    return path
