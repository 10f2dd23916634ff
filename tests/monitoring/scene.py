"""The running processes, as drills and users see them."""

import asyncio
import base64
import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from demo.layout import HOST, UPSTREAM, Layout, Server
from demo.pki import CertificateAuthority, Issued, write_credential, write_private
from demo.processes import Processes
from demo.upstream import FakeUpstream
from tests.bench.world import sign_in, workload_tls
from tests.monitoring.api_server import ApiServer
from tests.monitoring.controller_process import ControllerProcess
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.webhook_replica import WebhookReplica

TOKEN_SECONDS: Final = 8  # of the upstream
_LONG: Final = timedelta(days=30)
_EXCHANGE: Final = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}


@dataclass
class World:
    """`jwts` are of live sessions, by server and user; a drill may put others in their place."""

    folder: Path
    layout: Layout
    processes: Processes
    upstream: FakeUpstream
    servers_ca: CertificateAuthority
    workloads_ca: CertificateAuthority
    api_server: ApiServer
    controller: ControllerProcess
    webhook_replica: WebhookReplica
    log: "LogPipe"
    http: aiohttp.ClientSession
    prometheus: Prometheus = field(init=False)
    jwts: dict[tuple[str, str], str] = field(default_factory=dict)
    _versions: int = 0

    def server(self, name: str) -> Server:
        return next(server for server in self.layout.servers if server.name == name)

    async def sign_in(self, name: str, user: str) -> str:
        jwt = await sign_in(self.layout, self.server(name), user)
        self.jwts[name, user] = jwt
        return jwt

    async def ask_sidecar(self, name: str, jwt: str) -> int:
        """POST /v1/token; the status, 0 without an answer."""
        headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
        return await self._status(
            "POST", f"{self.server(name).sidecar}/v1/token", headers=headers, json={}
        )

    async def attach(self, name: str, jwt: str) -> int:
        """A call of the upstream's API through the sidecar."""
        url = f"{self.server(name).sidecar}/upstream/{UPSTREAM}/api/user"
        return await self._status("GET", url, headers={"Authorization": f"Bearer {jwt}"})

    async def through_gateway(self, name: str, jwt: str) -> int:
        call = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        headers = {
            "Authorization": f"Bearer {jwt}",
            "Accept": "application/json, text/event-stream",
        }
        return await self._status("POST", self.server(name).resource, headers=headers, json=call)

    async def exchange(self, credential: Path, jwt: str) -> int:
        """An exchange without a sidecar, and without its memory."""
        url = f"{self.layout.internal}/internal/token-exchange"
        tls = workload_tls(self.layout.server_ca, credential)
        return await self._status("POST", url, data=_EXCHANGE | {"subject_token": jwt}, ssl=tls)

    async def revoke(self, jwt: str) -> int:
        fields = {"token": jwt, "client_id": claims_of(jwt)["client_id"]}
        return await self._status("POST", f"{self.layout.issuer}/oauth/revoke", data=fields)

    async def end_sessions(self, name: str) -> None:
        """End all sessions of a server, as an operator does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tokenward", "sessions", "end",
            "--server", str(self.server(name).workload), "--reason", "a drill",
            "--config", str(self.layout.config),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()

    async def _status(self, method: str, url: str, **options: Any) -> int:
        try:
            async with self.http.request(method, url, **options) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    def configure(self, **changes: Any) -> None:
        """Replace members of the authserver's configuration; it is read anew by itself."""
        members = yaml.safe_load(self.layout.config.read_text()) | changes
        write_private(self.layout.config, yaml.safe_dump(members).encode())

    def certify_authserver(self, lifetime: timedelta = _LONG) -> None:
        issued = self.servers_ca.issue_server(ips=(HOST,), lifetime=lifetime)
        self._mount(self.layout.server_credential, issued)

    def certify_webhook(self, lifetime: timedelta = _LONG) -> None:
        issued = self.servers_ca.issue_server(ips=(HOST,), lifetime=lifetime)
        self._mount(self.folder / "webhook", issued)

    def certify_sidecar(self, name: str, lifetime: timedelta = timedelta(hours=12)) -> Path:
        server = self.server(name)
        issued = self.workloads_ca.issue_svid(server.spiffe_id, lifetime=lifetime)
        self._mount(server.credential, issued)
        return server.credential

    def _mount(self, folder: Path, issued: Issued) -> None:
        """Certificate and key change at once, as kubelet does it: the folder is a link."""
        self._versions += 1
        version = folder.with_name(f"{folder.name}.{self._versions}")
        write_credential(version, issued)
        link = folder.with_name(f"{folder.name}.link")
        link.symlink_to(version.name)
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        link.rename(folder)


def claims_of(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    found: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return found


def expired(jwt: str) -> str:
    """The same JWT with an end long ago; its signature does not matter to a sidecar."""
    head, _, signature = jwt.split(".")
    payload = json.dumps(claims_of(jwt) | {"exp": 1}).encode()
    return f"{head}.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.{signature}"


class LogPipe:
    """The reader of a process's standard error, which can go away and come back."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._copy = path.with_suffix(".text").open("ab")
        self.resume()

    def resume(self) -> None:
        self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def pause(self) -> None:
        """From now on nothing can be written."""
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            part = os.read(self._reader, 65536)
            self._copy.write(part)
            self._copy.flush()
            if not part:  # every writer has ended
                asyncio.get_running_loop().remove_reader(self._reader)
