"""`python -m sidecar` as an operating-system process."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from demo.pki import write_credential
from tests.fakes.authserver import FakeAuthserver, held_until
from tests.sidecar.gateway.app import raw_app
from tests.sidecar.harness import CALL, JWT, SPIFFE_ID, Authorities, environment, fake_authserver
from tests.sidecar.processes import ended, running, start

FORBIDDEN_MODULES = {
    "aiohttp",
    "authlib",
    "authserver",
    "cryptography",
    "email",
    "http.server",
    "jinja2",
    "joserfc",
    "kubernetes_asyncio",
    "msgspec",
    "multidict",
    "orjson",
    "prometheus_client",
    "pydantic",
    "uvloop",
    "urllib.request",
    "webhook",
    "wsgiref",
    "yaml",
    "yarl",
}


@pytest.fixture
async def authserver(tmp_path: Path, authorities: Authorities) -> AsyncIterator[FakeAuthserver]:
    issued = authorities.workloads.issue_svid(SPIFFE_ID)
    write_credential(tmp_path / "credential", issued)
    async with fake_authserver(tmp_path, authorities) as fake:
        yield fake


async def test_it_starts_answers_and_is_gone_within_two_seconds_of_sigterm(
    tmp_path: Path, authserver: FakeAuthserver
) -> None:
    key_log = tmp_path / "keys.log"
    hostile = {
        "SSLKEYLOGFILE": str(key_log),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "OPENSSL_CONF": "/nonexistent/openssl.cnf",
    }
    async with (
        running(environment(tmp_path, authserver.url) | hostile) as sidecar,
        aiohttp.ClientSession() as http,
    ):
        local, ops = f"http://127.0.0.1:{sidecar.port}", f"http://127.0.0.1:{sidecar.ops_port}"
        for probe in ("/healthz", "/readyz"):
            async with http.get(ops + probe) as response:
                assert (response.status, await response.text()) == (200, "ok\n")
        async with http.post(f"{local}/v1/token", json={}, headers=CALL) as response:
            assert (response.status, (await response.json())["upstream"]) == (200, "github")
        async with http.get(f"{ops}/metrics") as response:
            exposed = await response.text()
        for name in (
            'tokenward_sidecar_requests_total{door="hand_out",result="ok"} 1.0',
            'tokenward_sidecar_cache_total{result="miss"} 1.0',
            'tokenward_sidecar_cache_total{result="hit"} 0.0',
            "tokenward_sidecar_request_duration_seconds_bucket{",
            'tokenward_sidecar_exchange_duration_seconds_count{result="ok"} 1.0',
            "tokenward_sidecar_cache_entries 1.0",
            "tokenward_credential_expiry_timestamp_seconds 1",
            'tokenward_credential_reloads_total{result="ok"} 0.0',
        ):
            assert name in exposed
        assert "upstream-token" not in exposed

        # One call is still waiting for the authserver when the signal comes.
        released = asyncio.Event()
        authserver.always(held_until(released))
        waiting = asyncio.create_task(_post(http, local))
        await authserver.until_received(2)
        began = asyncio.get_running_loop().time()
        sidecar.process.send_signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.1, released.set)
        assert await waiting == 200
        assert await sidecar.process.wait() == 0
        assert asyncio.get_running_loop().time() - began < 2
        assert (await sidecar.events())[-1] == "stopped"
    assert not key_log.exists()


async def test_no_token_stands_where_the_kernel_shows_it(
    tmp_path: Path, authserver: FakeAuthserver
) -> None:
    """S27: neither in the arguments nor in the environment, before and after a call."""
    async with (
        running(environment(tmp_path, authserver.url)) as sidecar,
        aiohttp.ClientSession() as http,
    ):
        assert await _post(http, f"http://127.0.0.1:{sidecar.port}") == 200
        shown = Path(f"/proc/{sidecar.process.pid}")
        for name in ("cmdline", "environ"):
            try:
                text = (shown / name).read_bytes()
            except PermissionError:
                continue  # not even to ourselves: the process is not dumpable
            for secret in (b"upstream-token", JWT.encode(), b"PRIVATE KEY"):
                assert secret not in text


async def _post(http: aiohttp.ClientSession, local: str) -> int:
    body = {"upstream": "github"}
    async with http.post(f"{local}/v1/token", json=body, headers=CALL) as response:
        return response.status


async def test_a_call_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, authserver: FakeAuthserver
) -> None:
    never = asyncio.Event()
    authserver.always(held_until(never))
    async with (
        running(environment(tmp_path, authserver.url)) as sidecar,
        aiohttp.ClientSession() as http,
    ):
        waiting = asyncio.create_task(_post(http, f"http://127.0.0.1:{sidecar.port}"))
        await authserver.until_received(1)
        began = asyncio.get_running_loop().time()
        sidecar.process.send_signal(signal.SIGTERM)
        assert await waiting == 503
        assert await sidecar.process.wait() == 0
        assert asyncio.get_running_loop().time() - began < 2
        never.set()


async def test_it_starts_before_its_certificate_and_without_the_authserver(tmp_path: Path) -> None:
    async with (
        running(environment(tmp_path, "https://127.0.0.1:9")) as sidecar,
        aiohttp.ClientSession() as http,
    ):
        ops = f"http://127.0.0.1:{sidecar.ops_port}"
        async with http.get(f"{ops}/healthz") as response:
            assert response.status == 200
        async with http.get(f"{ops}/readyz") as response:
            assert response.status == 503
        assert await _post(http, f"http://127.0.0.1:{sidecar.port}") == 503
        sidecar.process.send_signal(signal.SIGTERM)
        assert await sidecar.process.wait() == 1  # it was never ready


async def test_a_bad_environment_lists_every_fault_and_exits_2() -> None:
    code, lines = await ended(await start({"TOKENWARD_PORT": "x"}))
    assert code == 2
    assert {line["event"] for line in lines} == {"bad_configuration"}
    assert {line["path"] for line in lines} == {
        "TOKENWARD_AUTHSERVER_URL",
        "TOKENWARD_AUTHSERVER_CA_FILE",
        "TOKENWARD_CREDENTIAL_DIR",
        "TOKENWARD_SPIFFE_ID",
        "TOKENWARD_PORT",
    }


@pytest.mark.parametrize("name", ["PORT", "OPS_PORT"])
async def test_a_port_in_use_is_one_clear_line(
    tmp_path: Path, authserver: FakeAuthserver, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = environment(tmp_path, authserver.url, **{name: str(port)})
        code, lines = await ended(await start(variables))
    assert code == 1
    [failed] = [line for line in lines if line["level"] == "error"]
    assert failed["event"] == "start_failed"
    assert f"port {port}" in failed["problem"]
    assert "in use" in failed["problem"]


async def test_a_pod_on_its_nodes_network_does_not_start(
    tmp_path: Path, authserver: FakeAuthserver
) -> None:
    code = (
        "import sidecar.__main__ as it; it.uses_host_network = lambda _: True; "
        "it.process.main(it.main)"
    )
    ended_with, lines = await ended(await start(environment(tmp_path, authserver.url), "-c", code))
    assert ended_with == 1
    [failed] = lines
    assert (failed["event"], "node's network" in failed["problem"]) == ("start_failed", True)


async def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, sidecar.__main__; "
        "print(*sorted({n.split('.')[0] for n in sys.modules} | {*sys.modules}))"
    )
    process = await start({}, "-c", code)
    stdout, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    assert "httptools" in stdout.decode().split()
    assert not FORBIDDEN_MODULES & set(stdout.decode().split())


async def test_a_gateway_listens_beside_the_local_api_and_is_gone_in_time(
    tmp_path: Path, authserver: FakeAuthserver
) -> None:
    async with raw_app() as app:
        gate = {"TOKENWARD_GATEWAY": f"0:{app.port}", "TOKENWARD_GATEWAY_HOST": "127.0.0.1"}
        async with (
            running(environment(tmp_path, authserver.url) | gate, listeners=3) as sidecar,
            aiohttp.ClientSession() as http,
        ):
            (port,) = (line["port"] for line in sidecar.lines if line.get("listener") == "gateway")
            url = f"http://127.0.0.1:{port}/mcp"
            async with http.post(url, headers=CALL) as response:
                assert (response.status, await response.text()) == (200, "ok")
            async with http.post(url) as response:
                assert response.status == 401
            began = asyncio.get_running_loop().time()
            sidecar.process.send_signal(signal.SIGTERM)
            assert await sidecar.process.wait() == 0
            assert asyncio.get_running_loop().time() - began < 2


async def test_a_sidecar_without_a_gateway_does_not_load_it() -> None:
    code = (
        "import sys, sidecar.app, sidecar.settings; "
        "print([name for name in sys.modules if name.startswith('sidecar.gateway')])"
    )
    process = await start({}, "-c", code)
    out, _ = await process.communicate()
    assert out == b"[]\n"
