"""One CycloneDX SBOM for each image: the locked Python packages that its process imports."""

import subprocess
import sys
from pathlib import Path

from release.oci import PROJECT


def write_sbom(extra: str, folder: Path) -> Path:
    """Write `tokenward-EXTRA.cdx.json`, CycloneDX 1.6 in JSON; the same lock gives the same bytes.

    It names every package with its version and the SHA-256 of its files. Debian's packages of the
    base image are not in it.
    """
    install = [sys.executable, "images/install", "--print", extra]
    locked = subprocess.run(install, cwd=PROJECT, check=True, capture_output=True).stdout
    path = folder / f"tokenward-{extra}.cdx.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "requirements", "-"),
            *("--output-reproducible", "--spec-version", "1.6", "--output-format", "JSON"),
            *("--output-file", str(path)),
        ],
        input=locked,
        check=True,
        capture_output=True,
    )
    return path
