"""The wheel, and the source archive that it is built from."""

import subprocess
import sys
from pathlib import Path

from release.oci import PROJECT


def build_packages(folder: Path) -> list[Path]:
    """Build the source archive and, from it, the wheel; their paths in `folder`."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(PROJECT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted((*folder.glob("tokenward-*.whl"), *folder.glob("tokenward-*.tar.gz")))
