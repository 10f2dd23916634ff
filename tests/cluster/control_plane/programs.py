"""Builds the control plane's programs from their Go modules, once for each state of the module."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent.parent
_KUBERNETES: Final = "k8s.io/kubernetes"
_ETCD: Final = "go.etcd.io/etcd/server/v3"
_COREDNS: Final = "github.com/coredns/coredns"
_CERT_MANAGER: Final = "github.com/cert-manager/cert-manager"
_VERSION_VARIABLE: Final = "k8s.io/component-base/version.gitVersion"

# Two at once: a build of Kubernetes takes 1.5 GB of memory for each further job.
_JOBS: Final = 2

CONTROL_PLANE: Final = ("kube-apiserver", "kube-controller-manager", "kubectl")
NODE: Final = ("kube-scheduler", "kubelet", "kube-proxy")


class CannotBuild(Exception):
    """Go is missing, or it could not build a program."""


@dataclass(frozen=True)
class Module:
    """A folder with `go.mod` and `go.sum` that pin one project, and sources where it needs any."""

    folder: Path
    project: str

    @property
    def version(self) -> str:
        """The pinned version of the project, as `v1.37.2`."""
        text = (self.folder / "go.mod").read_text("utf-8")
        found = re.search(rf"^(?:require)?\s+{re.escape(self.project)} (v\S+)", text, re.MULTILINE)
        if found is None:
            raise CannotBuild(f"{self.folder / 'go.mod'} does not require {self.project}")
        return found[1]

    def digest(self) -> str:
        """Names this state of the module files: the first 16 hexadecimal digits of a SHA-256."""
        hashed = hashlib.sha256()
        sources = sorted(path.name for path in self.folder.glob("*.go"))
        for name in ("go.mod", "go.sum", *sources):
            content = (self.folder / name).read_bytes()
            hashed.update(f"{name} {len(content)}\n".encode() + content)
        return hashed.hexdigest()[:16]


KUBERNETES: Final = Module(_HERE, _KUBERNETES)
ETCD: Final = Module(_HERE / "etcd", _ETCD)
COREDNS: Final = Module(_HERE / "dns", _COREDNS)
CERT_MANAGER: Final = Module(_HERE / "cert_manager", _CERT_MANAGER)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where built programs are kept (XDG Base Directory Specification)."""
    named = environment.get("XDG_CACHE_HOME", "")
    # The specification ignores relative paths.
    base = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    return base / "tokenward" / "cluster"


def build_all(cache: Path, *, node: bool = False) -> Mapping[str, Path]:
    """Each program's path by its name. What the cache lacks is built first; that takes minutes."""
    names = CONTROL_PLANE + (NODE if node else ())
    programs = {name: build(cache, KUBERNETES, name, f"{_KUBERNETES}/cmd/{name}") for name in names}
    if node:
        programs["coredns"] = build(cache, COREDNS, "coredns", ".")
    return {"etcd": build(cache, ETCD, "etcd", _ETCD), **programs}


def source_of(module: Module) -> Path:
    """The unpacked sources of the module's project. Raises CannotBuild."""
    command = [_go(), "mod", "download", "-json", f"{module.project}@{module.version}"]
    done = subprocess.run(command, cwd=module.folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuild(f"{module.project} cannot be had: {done.stderr or done.stdout}")
    return Path(json.loads(done.stdout)["Dir"])


def build(cache: Path, module: Module, name: str, package: str) -> Path:
    """The program `name`, built from `package` unless this state of the module has it already.

    Raises CannotBuild.
    """
    folder = cache / module.digest()
    built = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f".{name}.lock"):
        if not built.exists():
            print(f"Building {name} {module.version}; this happens once.", flush=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                _go_build(module, package, Path(scratch) / name)
                (Path(scratch) / name).replace(built)
    return built


def _go_build(module: Module, package: str, output: Path) -> None:
    # Without this variable every program calls itself v0.0.0-master.
    flags = f"-s -w -X {_VERSION_VARIABLE}={module.version}"
    command = [_go(), "build", "-p", str(_JOBS), "-trimpath", "-ldflags", flags, "-o", str(output)]
    # Static programs run in any root file system, and no C compiler is needed.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""}  # noqa: TID251 - Go's own
    done = subprocess.run([*command, package], cwd=module.folder, env=environment, check=False)
    if done.returncode != 0:
        raise CannotBuild(f"go build {package} ended with code {done.returncode}")


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise CannotBuild("Go is not installed; tests/cluster/go.mod says which version it needs")
    return go


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Of several processes one builds, and the others wait for it."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
