"""What kubectl reads in manifests, without a cluster."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.manifests.rendering import kubectl


def objects(file: Path) -> list[dict[str, Any]]:
    """The objects as kubectl reads them: raw, with every field. An error of kubectl is raised."""
    return _run("annotate", "--local", "-f", str(file), "-o", "json", "tokenward.test/read=1")


def typed(file: Path) -> list[dict[str, Any]]:
    """The objects decoded into their types, as the API server does. An error is raised."""
    return _run("set", "image", "--local", "-f", str(file), "-o", "json", "*=x")


def _run(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run([kubectl(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr[:2000])
    decoder, position = json.JSONDecoder(), 0
    found: list[dict[str, Any]] = []
    while position < len(done.stdout.rstrip()):
        data, position = decoder.raw_decode(done.stdout, position)
        position += len(done.stdout[position:]) - len(done.stdout[position:].lstrip())
        found += data["items"] if data["kind"] == "List" else [data]
    return found
