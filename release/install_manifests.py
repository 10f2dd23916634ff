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
OVERLAYS: Final = ("production",)

_SIDECAR_LINE: Final = re.compile(r"^(\s*image: )\S+/tokenward/sidecar@sha256:0{64}$", re.MULTILINE)


class NoPlaceholder(Exception):
    """The webhook's configuration has no line to put the sidecar's digest into."""


def write_manifests(images: Mapping[str, str], folder: Path) -> list[Path]:
    """Render each overlay; `images` maps `webhook`, `sidecar`, … to `registry/name@sha256:…`."""
    copy = folder / "work" / "manifests"
    shutil.copytree(PROJECT / "manifests", copy, ignore=shutil.ignore_patterns("generated", "keys"))
    _pin_sidecar(copy / "base/webhook/config.yaml", images["sidecar"])
    written = [_render(copy, overlay, images, folder) for overlay in OVERLAYS]
    shutil.rmtree(copy.parent)
    return written


def _pin_sidecar(config: Path, image: str) -> None:
    text, count = _SIDECAR_LINE.subn(rf"\g<1>{image}", config.read_text("utf-8"))
    if count != 1:
        raise NoPlaceholder(config.name)
    config.write_text(text, "utf-8")


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
    path.write_text(rendered, "utf-8")
    return path
