"""The ops listener says yes or no, counts, and tells nobody why."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import Counter
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from chassis import http1_probes
from chassis.http1.listener import Listener
from chassis.probes import Readiness, new_registry


@asynccontextmanager
async def ops(readiness: Readiness) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the ops listener."""
    registry = new_registry()
    Counter("tokenward_test", "A test", registry=registry).inc()
    server = http1_probes.ops_server(readiness, registry)
    bound = await Listener("ops", "127.0.0.1", 0, server).bind(0.0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{bound.port}") as http:
            yield http
    finally:
        await bound.cleanup()


async def said(http: aiohttp.ClientSession, path: str, method: str = "GET") -> tuple[int, str]:
    async with http.request(method, path) as answer:
        return answer.status, await answer.text()


async def test_a_process_is_ready_while_no_condition_is_missing() -> None:
    readiness = Readiness("listening", "credential")
    async with ops(readiness) as http:
        assert await said(http, "/healthz") == (200, "ok\n")
        assert await said(http, "/readyz") == (503, "not ready\n")
        readiness.satisfy("listening")
        assert await said(http, "/readyz") == (503, "not ready\n")
        readiness.satisfy("credential")
        assert await said(http, "/readyz") == (200, "ok\n")
        readiness.clear("credential")
        assert readiness.missing == ("credential",)
        assert await said(http, "/readyz") == (503, "not ready\n")
        assert await said(http, "/healthz") == (200, "ok\n")


async def test_metrics_are_this_processs_own() -> None:
    async with ops(Readiness()) as http:
        status, text = await said(http, "/metrics")
        assert status == 200
        assert "tokenward_test_total 1.0" in text
        assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize("path", ["/", "/healthz/", "/metrics/x", "/internal/token-exchange"])
async def test_nothing_else_is_there(path: str) -> None:
    async with ops(Readiness()) as http:
        assert (await said(http, path))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_probes_are_only_read(method: str) -> None:
    async with ops(Readiness()) as http:
        assert (await said(http, "/healthz", method))[0] == 405


async def test_answers_name_their_form_and_what_is_momentary_is_not_kept() -> None:
    async with ops(Readiness()) as http:
        async with http.get("/readyz") as ready:
            assert ready.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert ready.headers["Cache-Control"] == "no-store"
            assert "Server" not in ready.headers
        async with http.get("/metrics?name=x") as metrics:
            assert metrics.status == 200
            assert metrics.headers["Content-Type"] == CONTENT_TYPE_LATEST
        async with http.head("/healthz") as head:
            assert (head.status, head.headers["Content-Length"]) == (200, "3")
