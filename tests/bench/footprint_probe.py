"""Import time, start and memory of the three processes of the tree this runs in, as JSON.

Printed rows are [what, unit, value]. It runs in older trees too, so it uses only what every build
has: `python -m` of the three processes and the demo's layout and material.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from demo.layout import HOST, Layout, plan
from demo.material import write_material
from demo.stack import sidecar_environment

PROCESSES = ("sidecar", "authserver", "webhook")
READY_WITHIN_SECONDS = 30.0

Row = tuple[str, str, float]


def imported(process: str) -> Iterator[Row]:
    """CPU time and memory of a fresh interpreter that imported a process and did nothing else."""
    code = (
        f"import {process}.__main__, json, re, resource\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "text = open('/proc/self/smaps_rollup').read()\n"
        "kb = lambda name: int(re.search(name + r':\\s+(\\d+) kB', text)[1])\n"
        "private = kb('Private_Dirty') + kb('Private_Clean')\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, kb('Rss'), private]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, resident, private = json.loads(ended.stdout)
    yield f"{process}, imported", "ms CPU", seconds * 1000
    yield f"{process}, imported", "MB resident", resident / 1024
    yield f"{process}, imported", "MB private", private / 1024


def started(
    process: str, arguments: list[str], environment: dict[str, str], url: str
) -> Iterator[Row]:
    """From exec to the first 200 at `url`, and what the idle process then weighs."""
    outside = os.environ  # noqa: TID251 - for the interpreter
    inherited = {name: outside[name] for name in ("PATH", "PYTHONPATH")}
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", process, *arguments],
        env=environment | inherited,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_ready(url, begun + READY_WITHIN_SECONDS)
        yield f"{process}, exec to ready", "ms", (time.perf_counter() - begun) * 1000
        fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        yield f"{process}, exec to ready", "ms CPU", ticks * 1000 / os.sysconf("SC_CLK_TCK")
        time.sleep(0.3)
        sizes = Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in sizes[1:]}
        yield f"{process}, idle", "MB resident", kilobytes["Rss"] / 1024
        private = kilobytes["Private_Dirty"] + kilobytes["Private_Clean"]
        yield f"{process}, idle", "MB private", private / 1024
    finally:
        child.terminate()
        child.wait(timeout=30)


def _webhook_configuration(layout: Layout) -> Path:
    """A webhook with the authserver's certificate, on ports that nobody of this run takes."""
    credential = layout.server_credential
    configuration = {
        "image": f"registry.example.com/sidecar@sha256:{'a' * 64}",
        "trustDomain": "example.org",
        "issuer": "https://auth.example.com",
        "authserver": {"url": "https://authserver.svc:8443", "caFile": str(layout.server_ca)},
        "listeners": {
            "webhook": {
                "host": HOST,
                "port": layout.upstream_port,
                "certFile": str(credential / "tls.crt"),
                "keyFile": str(credential / "tls.key"),
                "lingerSeconds": 0,
            },
            "ops": {"host": HOST, "port": layout.page_port},
        },
    }
    file = layout.folder / "webhook.yaml"
    file.write_text(json.dumps(configuration), "utf-8")
    return file


def until_ready(url: str, until: float) -> None:
    while time.perf_counter() < until:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.002)
    raise TimeoutError(f"nothing answers 200 at {url}")


def main() -> None:
    rows = [row for process in PROCESSES for row in imported(process)]
    with tempfile.TemporaryDirectory() as folder:
        layout = plan(Path(folder))
        write_material(layout)
        server = layout.servers[0]
        rows += started("sidecar", [], sidecar_environment(layout, server), f"{server.ops}/readyz")
        rows += started("authserver", ["--config", str(layout.config)], {}, f"{layout.ops}/readyz")
        configured = ["--config", str(_webhook_configuration(layout))]
        rows += started("webhook", configured, {}, f"http://{HOST}:{layout.page_port}/readyz")
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
