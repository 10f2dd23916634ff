"""Environments of client libraries that cannot stand beside the ones we lock.

Each is made once under build/, from a lock file with hashes, and again when the file changes.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "interop"


def python_of(name: str) -> Path:
    """The environment's Python; made first where it is missing. Skips loudly without packages."""
    lock = HERE / f"{name}.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = BUILD / f"{name}-{digest}"
    python = folder / "bin" / "python"
    stamp = folder / "made"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        done = subprocess.run(
            [*pip, "--require-hashes", "-r", lock], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"THE JOURNEY OF {name} DID NOT RUN: its packages cannot be installed here")
        stamp.touch()
    return python
