"""Keycloak's own distribution, as Maven has it, with one realm; it takes minutes to start.

`TOKENWARD_TEST_KEYCLOAK` names one that runs already, with the realm of `keycloak-realm.json`.
"""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.interop.environments import BUILD, HERE

VERSION: Final = "26.7.3"
USER, PASSWORD = "alice", "alice-password"
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_START_SECONDS: Final = 600


@asynccontextmanager
async def keycloak(folder: Path) -> AsyncIterator[str]:
    """The issuer of a running realm `acme`."""
    running = os.getenv("TOKENWARD_TEST_KEYCLOAK")
    if running:
        yield f"{running}/realms/acme"
        return
    home = await asyncio.to_thread(_unpacked, folder)
    port = free_port()
    arguments = ("start-dev", "--http-host", "127.0.0.1", "--http-port", str(port))
    with (folder / "keycloak.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            home / "bin" / "kc.sh", *arguments, "--import-realm", stdout=log, stderr=log
        )
    issuer = f"http://127.0.0.1:{port}/realms/acme"
    try:
        async with asyncio.timeout(_START_SECONDS):
            await _until_up(issuer)
        yield issuer
    finally:
        process.terminate()
        await process.wait()


def _unpacked(folder: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        pytest.skip("needs Maven and a JDK")
    archive = BUILD / f"keycloak-quarkus-dist-{VERSION}.zip"
    if not archive.exists():
        artifact = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
        command = [maven, "-q", "-B", _COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={BUILD}"]
        if subprocess.run(command, check=False).returncode != 0:
            pytest.skip("Maven does not give Keycloak's distribution")
    shutil.unpack_archive(archive, folder)
    home = folder / f"keycloak-{VERSION}"
    # `unpack_archive` does not see to it that the script can be run.
    (home / "bin" / "kc.sh").chmod(0o755)
    (home / "data" / "import").mkdir(parents=True)
    shutil.copy(HERE / "keycloak-realm.json", home / "data" / "import" / "acme.json")
    return home


async def _until_up(issuer: str) -> None:
    """Ask until it answers; a start takes minutes, so a pause between is no guess at its length."""
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"{issuer}/.well-known/openid-configuration") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])
