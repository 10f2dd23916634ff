"""`python -m webhook --config FILE`, started, probed, drained."""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.support.server_certificates import Authority
from tests.webhook.pods import raw_settings, recorded

_ROOT = Path(__file__).parents[2]


def _configured(folder: Path, valid: timedelta = timedelta(days=1), **changes: Any) -> Path:
    Authority().issue(folder, valid)
    listeners = {
        "webhook": {
            "host": "127.0.0.1",
            "port": 0,
            "certFile": str(folder / "tls.crt"),
            "keyFile": str(folder / "tls.key"),
            "lingerSeconds": 4,
        },
        "ops": {"host": "127.0.0.1", "port": 0},
    }
    section = {"url": "https://a.svc:8443", "caFile": "ca.pem"}
    raw = raw_settings(authserver=section, listeners=listeners) | changes
    config = folder / "webhook.yaml"
    config.write_text(yaml.safe_dump(raw), "utf-8")
    return config


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ports: dict[str, int] = {}
        self.lines: list[dict[str, Any]] = []

    @classmethod
    async def start(cls, config: Path) -> "_Process":
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "webhook", "--config", str(config),
                stderr=asyncio.subprocess.PIPE, cwd=_ROOT,
            )
        )  # fmt: skip

    async def until(self, event: str) -> dict[str, Any]:
        """The next line of that event."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            told: dict[str, Any] = json.loads(line)
            self.lines.append(told)
            if told["event"] == "listening":
                self.ports[told["listener"]] = told["port"]
            if told["event"] == event:
                return told
        raise AssertionError(f"ended without {event}: {self.lines}")

    async def end(self) -> int:
        assert self.process.stderr is not None
        rest = await self.process.stderr.read()
        self.lines += [json.loads(line) for line in rest.splitlines()]
        return await self.process.wait()


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[_Process]:
    found = await _Process.start(_configured(tmp_path))
    try:
        yield found
    finally:
        if found.process.returncode is None:
            found.process.kill()
            await found.end()


def _client(folder: Path) -> aiohttp.ClientSession:
    trusting = ssl.create_default_context(cadata=(folder / "ca.pem").read_text("ascii"))
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting))


async def test_it_is_ready_once_it_listens_and_tells_when_its_certificate_ends(
    started: _Process, tmp_path: Path
) -> None:
    await started.until("ready")
    async with _client(tmp_path) as client:
        ops = f"http://127.0.0.1:{started.ports['ops']}"
        for path in ("/healthz", "/readyz"):
            async with client.get(ops + path) as answer:
                assert answer.status == 200
        async with client.get(ops + "/metrics") as answer:
            told = await answer.text()
        assert "tokenward_webhook_serving_cert_expiry_timestamp_seconds 1" in told
        url = f"https://localhost:{started.ports['webhook']}/mutate?timeout=5s"
        async with client.post(url, json=recorded("pod-create-bare")) as answer:
            assert (await answer.json())["response"]["patchType"] == "JSONPatch"
    decided = await started.until("decided")
    assert (decided["decision"], decided["pod"], decided["user"]) == ("injected", "bare", "admin")


async def test_no_admission_fails_while_it_is_told_to_stop(
    started: _Process, tmp_path: Path
) -> None:
    await started.until("ready")
    url = f"https://localhost:{started.ports['webhook']}/mutate?timeout=5s"
    review = recorded("pod-create-bare")
    answered = asyncio.Event()

    async def admit(client: aiohttp.ClientSession) -> None:
        """What an API server does: it keeps a connection until told to let it go.

        Each of the new connections it then makes is still served, as long as it is sent here.
        """
        told_to_go = 0
        while told_to_go < 2:
            async with client.post(url, json=review) as answer:
                assert answer.status == 200
                assert (await answer.json())["response"]["patchType"] == "JSONPatch"
                told_to_go += answer.headers.get("Connection") == "close"
            answered.set()

    async with _client(tmp_path) as client, asyncio.TaskGroup() as callers:
        for _ in range(8):
            callers.create_task(admit(client))
        reading = callers.create_task(started.end())
        await answered.wait()
        started.process.send_signal(signal.SIGTERM)
    assert reading.result() == 0
    assert started.lines[-1]["event"] == "stopped"


async def test_faults_of_the_configuration_are_all_told_and_nothing_starts(tmp_path: Path) -> None:
    found = await _Process.start(_configured(tmp_path, image="latest", issuer="x"))
    assert await found.end() == 2
    told = {line["path"] for line in found.lines if line["event"] == "bad_configuration"}
    assert told == {"image", "issuer"}


@pytest.mark.parametrize("valid", [timedelta(days=-1)])
async def test_an_expired_certificate_is_no_start(tmp_path: Path, valid: timedelta) -> None:
    found = await _Process.start(_configured(tmp_path, valid))
    assert await found.end() == 1
    assert "expired" in found.lines[-1]["problem"]


async def test_a_missing_certificate_is_no_start(tmp_path: Path) -> None:
    config = _configured(tmp_path)
    os.unlink(tmp_path / "tls.key")
    found = await _Process.start(config)
    assert await found.end() == 1
    assert "no such file" in found.lines[-1]["problem"]
