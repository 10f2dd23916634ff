"""`python -m tests.bench.image_starts NOW EARLIER`: starts of the sidecar in two of its images.

Both are images that buildah knows, made by the Dockerfile of their build on one base (see
`release.oci`). The sidecar is started as its image says: its variables, its user and its entry
point, with the image's files as its root. No container runtime is between, so what is measured is
the sidecar's. The images take turns, and the order changes from round to round. Needs root.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from demo.layout import plan
from demo.material import write_material
from demo.stack import sidecar_environment
from release.oci import buildah
from tests.bench.footprint_probe import until_ready

_ROUNDS: Final = 15
_PATIENCE_SECONDS: Final = 30.0
# What a container runtime puts into every container.
_MOUNTS: Final = ("/proc", "/dev")


class Start(NamedTuple):
    """Until /readyz says 200."""

    milliseconds: float
    cpu_milliseconds: float
    resident_megabytes: float


class Unpacked(NamedTuple):
    """The files of an image, the command that starts them, and the URL that answers when ready."""

    root: Path
    command: list[str]
    url: str


@contextmanager
def unpacked(image: str) -> Iterator[Unpacked]:
    """An image's files as a folder, with a sidecar's certificate in them."""
    container = buildah("from", "--pull=never", image)
    with ExitStack() as stack:
        stack.callback(buildah, "rm", container)
        root = Path(buildah("mount", container))
        stack.callback(buildah, "umount", container)
        for mounted in _MOUNTS:
            (root / mounted[1:]).mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", mounted, root / mounted[1:]], check=True)
            stack.callback(_unmount, root / mounted[1:])
        folder = Path(stack.enter_context(TemporaryDirectory(dir=root / "tmp")))
        layout = plan(folder)
        write_material(layout)
        subprocess.run(["chmod", "--recursive", "a+rX", folder], check=True)
        server = layout.servers[0]
        variables = sidecar_environment(layout, server)
        within = {name: value.replace(str(root), "") for name, value in variables.items()}
        yield Unpacked(root, _command(image, root, within), f"{server.ops}/readyz")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


def _command(image: str, root: Path, variables: dict[str, str]) -> list[str]:
    config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    of_image = dict(one.split("=", 1) for one in config["Env"])
    settings = [f"{name}={value}" for name, value in (of_image | variables).items()]
    changed = ["chroot", f"--userspec={config['User']}", str(root)]
    return [*changed, "/usr/bin/env", "-i", *settings, *config["Entrypoint"]]


def started(image: Unpacked) -> Start:
    """One start. Raises TimeoutError where it is never ready."""
    begun = time.perf_counter()
    process = subprocess.Popen(image.command, stderr=subprocess.DEVNULL)
    try:
        until_ready(image.url, begun + _PATIENCE_SECONDS)
        took = time.perf_counter() - begun
        folder = Path(f"/proc/{process.pid}")
        # Nanoseconds on a processor; `stat` has hundredths of a second.
        threads = (folder / "task").glob("*/schedstat")
        used = sum(int(thread.read_text().split()[0]) for thread in threads)
        sizes = (folder / "smaps_rollup").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in sizes if line.startswith("Rss:"))
        return Start(took * 1000, used / 1e6, kilobytes / 1024)
    finally:
        process.terminate()
        process.wait(timeout=_PATIENCE_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.image_starts")
    parser.add_argument("now")
    parser.add_argument("earlier")
    given = parser.parse_args()
    with unpacked(given.now) as now, unpacked(given.earlier) as earlier:
        starts: dict[Path, list[Start]] = {now.root: [], earlier.root: []}
        for image in (now, earlier):
            started(image)  # reads the files into the page cache
        for turn in range(_ROUNDS):
            for image in (now, earlier) if turn % 2 else (earlier, now):
                starts[image.root].append(started(image))
    print("| sidecar in its image, exec to ready | now | earlier | now / earlier |")
    print("|---|---:|---:|---:|")
    for number, unit in enumerate(("ms", "ms CPU", "MB resident")):
        new, old = (statistics.median(one[number] for one in each) for each in starts.values())
        print(f"| {unit} | {new:,.1f} | {old:,.1f} | {new / old:.2f} |")


if __name__ == "__main__":
    main()
