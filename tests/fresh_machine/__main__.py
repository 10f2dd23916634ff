"""`make fresh-machine`: the README's two commands in a Debian root that has only Python and make.

Needs root, debootstrap and a Debian mirror. The root is made in a temporary folder, gets a copy
of the committed tree, shares this machine's network, and is removed at the end. Prints how long
each command took; exits 1 at the first one that fails.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]

_PACKAGES: Final = "python3,python3-venv,make,ca-certificates,git"
_SUITE: Final = "trixie"
# How this machine reaches a package index; none of it is Tokenward's.
_LENT_FILES: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs")
_LENT_VARIABLES: Final = re.compile(r"(?:PIP|SSL|NODE|NPM|npm|GO|HTTPS?|NO|https?|no)_.*|GOPROXY")


def main() -> int:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("fresh-machine needs root and debootstrap", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fresh-machine-") as folder:
        root = Path(folder, "root")
        _make_root(root)
        for command in readme_commands((PROJECT / "README.md").read_text("utf-8")):
            started = time.monotonic()
            code = _run(root, command)
            print(f"{command}: {time.monotonic() - started:.0f} s, exit code {code}", flush=True)
            if code != 0:
                return 1
    return 0


def readme_commands(readme: str) -> list[str]:
    """The commands of the README's first block of shell commands, without their comments."""
    block = readme.partition("```console\n")[2].partition("```")[0]
    return [line.partition("#")[0].strip() for line in block.splitlines()]


def _make_root(root: Path) -> None:
    options = ("--variant=minbase", f"--include={_PACKAGES}")
    subprocess.run(["debootstrap", *options, _SUITE, root], check=True, stdout=sys.stderr)
    for lent in map(Path, _LENT_FILES):
        target = root / lent.relative_to("/")
        if lent.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(lent, target)
        elif lent.exists():
            shutil.copyfile(lent, target)
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(root / "tokenward")]
    subprocess.run(clone, check=True)


def _run(root: Path, command: str) -> int:
    """Run a command in the root with processes and mounts of its own, which end with it."""
    script = f"mount -t proc proc /proc; mount -t tmpfs tmpfs /dev/shm; cd /tokenward; {command}"
    known = os.environ.items()  # noqa: TID251 - lent as they are
    lent = {name: value for name, value in known if _LENT_VARIABLES.fullmatch(name)}
    return subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--"),
            *("sh", "-ec", 'mount --rbind /dev "$1/dev"; exec chroot "$1" sh -ec "$2"', "-"),
            *(str(root), script),
        ],
        env={**lent, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
             "HOME": "/root", "LANG": "C.UTF-8", "CI": "true"},
        check=False,
    ).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
