"""An authserver of an earlier commit or of this tree, as a process, with users who signed in.

The earlier code comes out of the repository's history and runs with this tree's dependencies.
"""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import yaml

from authserver.app import Authserver
from demo.pki import CertificateAuthority
from demo.upstream import FakeUpstream
from tests.fakes.clock import ManualClock
from tests.support.deployment import (
    NOTES,
    TASKS,
    Deployment,
    SignedIn,
    configuration_of,
    write_material,
)

ROOT: Final = Path(__file__).resolve().parents[2]
FIRST_BUILD: Final = "9d4a13e"
_READY_SECONDS: Final = 40


def is_in_history(commit: str = FIRST_BUILD) -> bool:
    """False in a shallow clone, and outside a repository."""
    command = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def extract(folder: Path, commit: str = FIRST_BUILD) -> Path:
    """The authserver's code of a commit, in a folder of its own."""
    command = ["git", "archive", commit, "authserver", "chassis"]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@dataclass
class Installation:
    """A folder with keys, configuration and database, and whatever build runs on it."""

    deployment: Deployment
    hub: FakeUpstream
    ops: str
    process: asyncio.subprocess.Process | None = None
    users: dict[str, SignedIn] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.deployment.folder

    def log(self) -> str:
        """What the processes of this folder have logged."""
        return (self.folder / "log").read_text()

    def change(self, **upstream: Any) -> None:
        """Other members of the first upstream, in the file that a running authserver watches."""
        file = self.folder / "authserver.yaml"
        raw = yaml.safe_load(file.read_text())
        raw["upstreams"][0] |= upstream
        file.write_text(yaml.safe_dump(raw))

    async def start(self, tree: Path) -> None:
        """Run the authserver of this tree until `kill`; returns when it is ready."""
        log = os.open(self.folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "authserver", "--config", self.folder / "authserver.yaml",
                cwd=tree,
                env={"PATH": os.defpath, "PYTHONPATH": str(tree)},
                stderr=log,
            )  # fmt: skip
        finally:
            os.close(log)
        async with asyncio.timeout(_READY_SECONDS):
            while not await self._is_ready():
                assert self.process.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """End the process without a word, as a node that fails does."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def sign_in(self) -> None:
        """Alice with two clients, Bob, and Alice at another server with an OAuth 2.0 upstream."""
        world = self.deployment
        self.users = {
            "alice": await world.signed_in("alice", scope="mcp offline_access"),
            "alice again": await world.signed_in("alice", scope="mcp offline_access"),
            "bob": await world.signed_in("bob", scope="mcp offline_access"),
            "alice at tasks": await world.signed_in("alice", resource=TASKS),
        }

    async def refresh(self, name: str) -> SignedIn:
        user = self.users[name]
        answer = await self.deployment.refresh(user.client_id, user.refresh_token)
        assert answer.status == 200, (name, answer.text)
        self.users[name] = SignedIn(user.client_id, **answer.json())
        return self.users[name]

    async def _is_ready(self) -> bool:
        try:
            async with self.deployment.http.get(f"{self.ops}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def configuration(folder: Path, issuer: str, acme: str, hub: str) -> dict[str, Any]:
    """Members that the first build knows, with one upstream of each type."""
    found: dict[str, Any] = configuration_of(folder, issuer, acme)
    found["upstreams"][0]["scopes"] = ["openid", "offline_access"]
    found["upstreams"].append(
        {
            "name": "hub",
            "type": "oauth2",
            "authorizationEndpoint": f"{hub}/authorize",
            "tokenEndpoint": f"{hub}/token",
            "userinfoEndpoint": f"{hub}/userinfo",
            "revocationEndpoint": f"{hub}/revoke",
            "subjectField": "sub",
            "clientId": "tokenward",
            "clientSecretFile": "upstream-secret",
            "scopes": ["openid"],
        }
    )
    notes, tasks = found["resources"]
    assert (notes["resource"], tasks["resource"]) == (NOTES, TASKS)
    tasks["upstreams"] = ["hub"]
    return found


@asynccontextmanager
async def installation(folder: Path) -> AsyncIterator[Installation]:
    """Everything but a running authserver, on ports that stay the same for every build."""
    public, internal, ops = _free_ports(3)
    issuer = f"http://127.0.0.1:{public}"
    async with AsyncExitStack() as stack:
        acme, hub = (
            FakeUpstream(
                client_id="tokenward",
                client_secret="upstream secret canary",
                redirect_uri=f"{issuer}/oauth/callback/{name}",
                access_token_lifetime=60,
            )
            for name in ("acme", "hub")
        )
        await stack.enter_async_context(acme.serve())
        await stack.enter_async_context(hub.serve())
        server_ca, workload_ca = (CertificateAuthority.create(n) for n in ("servers", "workloads"))
        write_material(folder, server_ca, workload_ca)
        raw = configuration(folder, issuer, acme.issuer, hub.issuer)
        for name, port in (("public", public), ("internal", internal), ("ops", ops)):
            raw["listeners"][name]["port"] = port
        (folder / "authserver.yaml").write_text(yaml.safe_dump(raw))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        )
        deployment = Deployment(
            folder,
            ManualClock(),
            acme,
            cast("Authserver", None),  # it is a process
            issuer,
            f"https://127.0.0.1:{internal}",
            server_ca,
            workload_ca,
            http,
        )
        found = Installation(deployment, hub, f"http://127.0.0.1:{ops}")
        stack.push_async_callback(found.kill)
        yield found


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports
