"""`tokenward dev`: an author's server gets its user's token, and nothing is left running."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from chassis import clock
from demo.mcp_client import sign_in
from demo.upstream.dialects.server import ProviderServer
from demo.upstream.dialects.table import BEHAVIOURS
from tests.support.browser_logins import jwt_of
from tests.tokenward.running import run

ROOT = Path(__file__).resolve().parents[2]
# It asks its sidecar for the token of the JWT that it is given, and says who the user is.
SERVER = """
import json, os, sys, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        headers = {"Authorization": self.headers["Authorization"], "X-Tokenward": "1",
                   "Content-Type": "application/json"}
        ask = urllib.request.Request(os.environ["TOKENWARD_URL"] + "/v1/token", b"{}", headers)
        token = json.load(urllib.request.urlopen(ask))["access_token"]
        call = urllib.request.Request(sys.argv[1], None, {"Authorization": "Bearer " + token})
        body = urllib.request.urlopen(call).read()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass
class Dev:
    process: asyncio.subprocess.Process
    said: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def dev(*arguments: str) -> AsyncIterator[Dev]:
    """The command, once it has said where everything is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tokenward", "dev", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = {}
        while "Ctrl-C" not in (line := (await process.stdout.readline()).decode()):
            assert line, (await process.communicate())[1].decode()
            name, _, value = line.partition(":  ")
            said[name] = value.strip()
        yield Dev(process, said)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(url).port)) == 0


def documented_server() -> str:
    page = (ROOT / "docs/how-to/develop-without-kubernetes.md").read_text("utf-8")
    return page.partition("```python dev\n")[2].partition("```")[0]


@pytest.mark.timeout(180)
async def test_the_documented_server_gets_its_users_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the official SDK on both sides; then nothing is left running."""
    (tmp_path / "my_server.py").write_text(documented_server())
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'integrations/python/src'}")
    port, server = free_port(), str(tmp_path / "my_server.py")
    async with dev("--port", str(port), "--", sys.executable, server) as running:
        said = running.said
        url = said["MCP URL for any client"]
        assert url == f"http://127.0.0.1:{port}/mcp"
        while not listens(url):
            await asyncio.sleep(0.05)
        people = dict(one.split(" / ") for one in said["sign in there as"].split(", "))
        async with sign_in(
            url, username="alice", password=people["alice"], on_hop=lambda _: None
        ) as connection:
            answer = await connection.client.call_tool("whoami", {})
        assert '"login": "alice"' in getattr(answer.content[0], "text", "")
        running.process.send_signal(signal.SIGINT)
        out, _ = await running.process.communicate()
        assert running.process.returncode == 0
        assert b"everything has been stopped" in out
    for one in (said["authserver (issuer)"], said["sidecar (TOKENWARD_URL)"], url):
        assert not listens(one)


@pytest.mark.timeout(180)
async def test_a_real_provider_gives_the_token(tmp_path: Path) -> None:
    """A fake that acts by GitHub's pages, at another address; everything else is the real one's."""
    (tmp_path / "secret").write_text("canary-secret\n")
    (tmp_path / "server.py").write_text(SERVER)
    public, port = free_port(), free_port()
    github = ProviderServer(BEHAVIOURS["github-oauth-app"], "canary-secret", clock.wall)
    async with github.serve():
        endpoints = {
            "authorizationEndpoint": github.behaviour.authorize,
            "tokenEndpoint": github.behaviour.token,
            "userinfoEndpoint": github.behaviour.userinfo,
        }
        moved = [f"--set={name}={github.url}/{path}" for name, path in endpoints.items()]
        async with dev(
            "--upstream", "github", "--client-id", "tokenward", *moved,
            "--client-secret-file", str(tmp_path / "secret"), "--set=scopes=[read:user, repo]",
            "--public-port", str(public), "--port", str(port),
            "--", sys.executable, str(tmp_path / "server.py"),
            f"{github.url}/{github.behaviour.userinfo}",
        ) as running:  # fmt: skip
            uri = f"http://127.0.0.1:{public}/oauth/callback/github"
            assert running.said["redirect URI to register"] == uri
            assert "canary" not in str(running.said)
            resource = running.said["MCP URL for any client"]
            jwt = await jwt_of(running.said["authserver (issuer)"], resource, "nobody")
            while not listens(resource):
                await asyncio.sleep(0.05)
            headers = {"Authorization": f"Bearer {jwt}"}
            async with aiohttp.ClientSession() as http, http.get(resource, headers=headers) as got:
                assert await got.json(content_type=None) == {"id": 1001, "login": "Alice"}
        assert github.grants.grants[0].scopes == ("read:user", "repo")
    assert running.process.returncode == 0


@pytest.mark.timeout(180)
async def test_what_the_command_started_ends_too(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {file}.part; mv {file}.part {file}; wait"
    async with dev("--", "sh", "-c", script) as running:
        while not file.exists():
            await asyncio.sleep(0.05)
        running.process.send_signal(signal.SIGTERM)
        await running.process.communicate()
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


@pytest.mark.timeout(180)
async def test_it_ends_with_the_command_and_its_code() -> None:
    async with dev("--", sys.executable, "-c", "import sys; sys.exit(3)") as running:
        out, _ = await running.process.communicate()
        assert running.process.returncode == 3
        assert re.search(rb"the command ended with code 3\neverything has been stopped", out)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--upstream github", "--upstream and --client-id go together"),
        ("--upstream github --client-id=", "--upstream and --client-id go together"),
        ("--upstream githup --client-id mine", "no preset 'githup'; did you mean github?"),
        ("--upstream x --client-id mine", "no preset 'x'; there are asana, "),
        ("--client-secret-file secret", "they go with --upstream"),
        ("--set scopes=[]", "they go with --upstream"),
        ("--upstream github --client-id mine --set scopes", "must be NAME=VALUE"),
        ("--upstream github --client-id mine --set scopes=[", "must be NAME=VALUE"),
        ("--upstream github --client-id mine --set clientId=x", "must be NAME=VALUE"),
        ("--port 0", "--port 0: must be 1 to 65535"),
        ("--public-port 65536", "--public-port 65536: must be 1 to 65535"),
        ("--port 8000 --public-port 8000", "must differ"),
    ],
)
async def test_what_does_not_fit_is_wrong_usage(arguments: str, problem: str) -> None:
    ran = await run("dev", *arguments.split(), "--", "sleep", "1")
    assert ran.code == 2
    assert problem in ran.err
    assert len(ran.err.splitlines()) == 1


async def test_a_command_is_needed() -> None:
    assert (await run("dev")).code == 2


async def test_every_fault_is_said_before_anything_runs(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = await refused(
            "--upstream", "github", "--client-id", "mine", "--set", "surprise=1",
            "--client-secret-file", str(tmp_path / "missing"),
            "--public-port", str(taken.getsockname()[1]), "--", "no-such-program",
        )  # fmt: skip
    assert [line for line in said if "upstreams" in line or "no-such" in line] == [
        "error: no-such-program: no such program",
        f"error: upstreams[0].clientSecretFile: {tmp_path / 'missing'}: no such file or directory",
        "error: upstreams[0].surprise: is not a member we know",
        "error: upstreams[0] is github; --set gives it further members",
    ]
    assert any("Address already in use" in line for line in said)


async def refused(*arguments: str) -> list[str]:
    """What the command says on standard error, where it starts nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tokenward", "dev", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    return err.decode().splitlines()
