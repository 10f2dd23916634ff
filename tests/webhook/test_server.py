"""The admission endpoint over real TLS."""

import asyncio
import json
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import jsonpatch
import pytest
from prometheus_client import CollectorRegistry

from chassis.http1.limits import Limits
from chassis.http1.listener import Listener
from chassis.probes import Readiness
from chassis.tls import reload
from tests.support.server_certificates import Authority
from tests.webhook.pods import SIDECAR, pod, recorded, settings
from webhook import listener
from webhook.__main__ import _serving_certificate
from webhook.metrics import Metrics
from webhook.settings import Settings, WebhookListener


@dataclass
class Running:
    """A webhook on loopback and a client that trusts it."""

    url: str
    port: int
    session: aiohttp.ClientSession
    registry: CollectorRegistry
    readiness: Readiness
    serving: reload.ContextReloader
    under: list[Settings]

    async def review(self, review: Any, path: str = "/mutate?timeout=5s") -> dict[str, Any]:
        async with self.session.post(self.url + path, json=review) as answer:
            assert answer.status == 200, await answer.text()
            told: dict[str, Any] = await answer.json()
        assert told["response"]["uid"] == review["request"]["uid"]
        return told

    async def status(self, body: bytes, path: str = "/mutate", **headers: str) -> int:
        sent = {"Content-Type": "application/json"} | headers
        async with self.session.post(self.url + path, data=BytesIO(body), headers=sent) as answer:
            await answer.read()
            return answer.status

    def counted(self, decision: str, reason: str) -> float:
        labels = {"decision": decision, "reason": reason}
        return self.registry.get_sample_value("tokenward_webhook_decisions_total", labels) or 0.0


@asynccontextmanager
async def _running(folder: Path, limits: Limits = listener.LIMITS) -> AsyncIterator[Running]:
    authority = Authority()
    authority.issue(folder)
    registry, readiness, under = CollectorRegistry(), Readiness("listening"), [settings()]
    readiness.satisfy("listening")
    files = {"certFile": folder / "tls.crt", "keyFile": folder / "tls.key"}
    serving = _serving_certificate(WebhookListener.model_validate(files))
    server = listener.server(lambda: under[0], readiness, Metrics(registry), limits=limits)
    http1 = Listener("webhook", "127.0.0.1", 0, server, tls=serving.context)
    bound = await http1.bind(drain_seconds=1.0)
    trusting = ssl.create_default_context(cadata=authority.pem)
    connector = aiohttp.TCPConnector(ssl=trusting)
    try:
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"https://localhost:{bound.port}"
            yield Running(url, bound.port, session, registry, readiness, serving, under)
    finally:
        await bound.cleanup()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with _running(tmp_path) as found:
        yield found


def _review(made: dict[str, Any], **request: Any) -> dict[str, Any]:
    review = recorded("pod-create-bare")
    review["request"] |= {"object": made} | request
    return review


async def test_a_recorded_review_is_answered_with_a_patch_that_injects(running: Running) -> None:
    review = recorded("pod-create-replicaset")
    told = await running.review(review)
    assert (told["apiVersion"], told["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = told["response"]
    assert (response["allowed"], response["patchType"]) == (True, "JSONPatch")
    patch = json.loads(b64decode(response["patch"]))
    found = jsonpatch.apply_patch(review["request"]["object"], patch)
    assert found["spec"]["initContainers"][0]["name"] == SIDECAR
    assert response["auditAnnotations"] == {
        "decision": "injected",
        "reason": "injected",
        "config-hash": settings().config_hashes["default"],
    }
    assert running.counted("injected", "injected") == 1


async def test_a_second_review_of_the_patched_pod_carries_no_patch(running: Running) -> None:
    review = recorded("pod-create-job")
    first = (await running.review(review))["response"]
    patch = json.loads(b64decode(first["patch"]))
    review["request"]["object"] = jsonpatch.apply_patch(review["request"]["object"], patch)
    second = (await running.review(review))["response"]
    assert "patch" not in second
    assert "patchType" not in second
    assert running.counted("injected", "already-injected") == 1


async def test_a_denial_carries_every_fault_and_a_code(running: Running) -> None:
    told = await running.review(_review(pod({"inject": "yes", "port": "80"}, hostPID=True)))
    response = told["response"]
    assert response["allowed"] is False
    assert response["status"]["code"] == 403
    for part in ('"yes"', '"80"', "hostPID"):
        assert part in response["status"]["message"]
    assert response["auditAnnotations"] == {"decision": "denied", "reason": "bad-value"}


async def test_warnings_reach_the_user(running: Running) -> None:
    env = [{"name": "HTTP_PROXY", "value": "http://p"}]
    told = await running.review(_review(pod(container={"env": env})))
    assert "NO_PROXY" in told["response"]["warnings"][0]


@pytest.mark.parametrize(
    "name",
    [
        "pod-update", "pod-update-ephemeralcontainers", "pod-delete", "pod-create-binding",
        "deployment-create", "cronjob-create",
    ],
)  # fmt: skip
async def test_anything_but_the_creation_of_a_pod_is_allowed_untouched(
    running: Running, name: str
) -> None:
    response = (await running.review(recorded(name)))["response"]
    assert response["allowed"] is True
    assert "patch" not in response
    assert response["auditAnnotations"]["reason"] == "not-a-pod-creation"


@pytest.mark.parametrize("sub_resource", ["ephemeralcontainers", "resize", "status"])
async def test_a_subresource_of_a_pod_is_allowed_untouched(
    running: Running, sub_resource: str
) -> None:
    response = (await running.review(_review(pod(), subResource=sub_resource)))["response"]
    assert response["auditAnnotations"]["reason"] == "not-a-pod-creation"


async def test_a_dry_run_gets_the_same_answer(running: Running) -> None:
    review = recorded("pod-create-dry-run")
    dry = await running.review(review)
    review["request"]["dryRun"] = False
    assert await running.review(review) == dry


async def test_the_namespaces_path_injects_a_pod_that_says_nothing(running: Running) -> None:
    silent = pod()
    silent["metadata"]["annotations"] = {}
    left = await running.review(_review(silent), "/mutate?timeout=5s")
    assert left["response"]["auditAnnotations"]["reason"] == "not-requested"
    told = await running.review(_review(silent), "/mutate/namespace?timeout=5s")
    assert "patch" in told["response"]


async def test_the_namespace_is_the_requests(running: Running) -> None:
    told = await running.review(_review(pod(), namespace="elsewhere"))
    assert b"/ns/elsewhere/mcpserver/github" in b64decode(told["response"]["patch"])


@pytest.mark.parametrize("name", ["", "Upper", "../x", "a/b", "x" * 64])
async def test_a_request_without_a_proper_namespace_is_refused(running: Running, name: str) -> None:
    assert await running.status(json.dumps(_review(pod(), namespace=name)).encode()) == 400


def _broken(**changes: Any) -> bytes:
    return json.dumps(recorded("pod-create-bare") | changes).encode()


def _without(field: str) -> bytes:
    review = recorded("pod-create-bare")
    del review["request"][field]
    return json.dumps(review).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        _broken(request=None),
        _broken(request={}),
        _broken(apiVersion="admission.k8s.io/v1beta1"),
        _broken(kind="Pod"),
        _without("uid"),
        _broken(request=recorded("pod-create-bare")["request"] | {"uid": ""}),
        _without("kind"),
        _without("operation"),
    ],
    ids=range(16),
)
async def test_what_is_no_review_is_a_400_and_the_next_one_is_served(
    running: Running, body: bytes
) -> None:
    assert await running.status(body) == 400
    await running.review(recorded("pod-create-bare"))


@pytest.mark.parametrize("made", [None, [], "x", {}, {"spec": {}}, {"spec": {"containers": [1]}}])
async def test_a_review_without_a_proper_pod_is_denied(running: Running, made: Any) -> None:
    response = (await running.review(_review(made)))["response"]
    assert response["allowed"] is False
    assert response["auditAnnotations"]["reason"] == "malformed"


async def test_strangers_get_the_plain_statuses(running: Running) -> None:
    body = json.dumps(recorded("pod-create-bare")).encode()
    assert await running.status(body, "/") == 404
    assert await running.status(body, "/mutate/") == 404
    assert await running.status(body, **{"Content-Type": "text/plain"}) == 415
    async with running.session.get(running.url + "/mutate") as answer:
        assert answer.status == 405


def _padded(size: int) -> bytes:
    made = pod()
    made["metadata"]["annotations"]["padding"] = "x" * size
    return json.dumps(_review(made)).encode()


async def test_a_review_of_several_mebibytes_is_served(running: Running) -> None:
    assert await running.status(_padded(listener.MAX_BODY - 100_000)) == 200


async def test_a_review_over_the_limit_is_refused_by_its_length(running: Running) -> None:
    assert await running.status(_padded(listener.MAX_BODY)) == 413


async def test_a_review_of_unknown_length_is_refused(running: Running) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}"

    headers = {"Content-Type": "application/json"}
    async with running.session.post(
        running.url + "/mutate", data=chunks(), headers=headers
    ) as answer:
        assert answer.status == 411


async def test_a_compressed_body_is_not_unpacked(running: Running) -> None:
    assert await running.status(b"\x1f\x8b\x08" + b"0" * 100, **{"Content-Encoding": "gzip"}) == 400


async def _first_line(running: Running, *head: str) -> bytes:
    """The status line for a request whose body is begun and never finished."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=trusting)
    fields = ("Host: x", "Content-Type: application/json")
    writer.write("\r\n".join((head[0], *fields, *head[1:], "", "{")).encode())
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return line


async def test_a_body_that_stalls_is_given_up_at_the_callers_deadline(running: Running) -> None:
    head = "POST /mutate?timeout=50ms HTTP/1.1"
    assert b" 408 " in await _first_line(running, head, "Content-Length: 1000")


async def test_a_body_announced_too_large_is_refused_before_it_comes(running: Running) -> None:
    head = "POST /mutate?timeout=9s HTTP/1.1"
    assert b" 413 " in await _first_line(running, head, f"Content-Length: {listener.MAX_BODY + 1}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0), ("1m0s", 30.0), ("4.5s", 4.5), ("500ms", 0.5), ("30s", 30.0),
        ("", 10.0), ("s", 10.0), ("soon", 10.0), ("-5s", 10.0), ("9999m", 30.0),
    ],
)  # fmt: skip
def test_the_timeout_is_read_as_go_writes_it(text: str, seconds: float) -> None:
    assert listener._timeout(text) == seconds


async def test_a_thousand_pods_at_once_are_all_answered(running: Running) -> None:
    review = recorded("pod-create-replicaset")
    told = await asyncio.gather(*(running.review(review) for _ in range(1000)))
    assert all("patch" in one["response"] for one in told)


async def test_a_new_configuration_serves_the_next_review(running: Running) -> None:
    await running.review(recorded("pod-create-bare"))
    running.under[0] = settings(issuer="https://second.example.com")
    told = await running.review(recorded("pod-create-bare"))
    assert b"https://second.example.com" in b64decode(told["response"]["patch"])


async def _serial(running: Running, authority_pem: str) -> str:
    trusting = ssl.create_default_context(cadata=authority_pem)
    _, writer = await asyncio.open_connection(
        "localhost", running.port, ssl=trusting, server_hostname="localhost"
    )
    peer = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    await writer.wait_closed()
    return str(peer["serialNumber"])


async def test_a_renewed_certificate_is_served_without_a_restart(
    running: Running, tmp_path: Path
) -> None:
    first = recorded("pod-create-bare")
    await running.review(first)
    authority = Authority()
    serial = authority.issue(tmp_path)
    assert running.serving.poll()
    assert await _serial(running, authority.pem) == serial
    await running.review(first)  # on the connection of before


async def test_a_broken_certificate_leaves_the_old_one_serving(
    running: Running, tmp_path: Path
) -> None:
    pem = (tmp_path / "ca.pem").read_text("ascii")
    before = await _serial(running, pem)
    (tmp_path / "tls.crt").write_text("nonsense", "ascii")
    assert not running.serving.poll()
    assert await _serial(running, pem) == before


async def test_connections_are_ended_with_the_answer_while_draining(running: Running) -> None:
    body = recorded("pod-create-bare")
    async with running.session.post(running.url + "/mutate", json=body) as answer:
        assert answer.headers.get("Connection") != "close"
    running.readiness.clear("listening")
    async with running.session.post(running.url + "/mutate", json=body) as answer:
        assert answer.status == 200
        assert answer.headers["Connection"] == "close"


async def test_no_answer_names_its_software(running: Running) -> None:
    for path, status in (("/mutate", 200), ("/elsewhere", 404)):
        body = recorded("pod-create-bare")
        async with running.session.post(running.url + path, json=body) as answer:
            assert answer.status == status
            assert "Server" not in answer.headers


def test_an_idle_connection_is_for_the_api_server_to_close() -> None:
    """Go's transport opens connections that it may have no request for, and keeps them 90 s."""
    assert listener.LIMITS.idle_seconds > 90
    assert listener.LIMITS.head_seconds > 90


async def test_all_connections_together_have_a_limit(tmp_path: Path) -> None:
    async with _running(tmp_path, listener.LIMITS._replace(connections=1)) as running:
        await running.review(recorded("pod-create-bare"))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as second:
            with pytest.raises(aiohttp.ClientError):
                await second.post(running.url + "/mutate", json=recorded("pod-create-bare"))
        await running.review(recorded("pod-create-bare"))


async def test_an_unexpected_failure_is_a_500_told_by_type_and_never_by_words(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.under.clear()
    assert await running.status(_broken()) == 500
    assert running.counted("error", "failed") == 1
    assert "IndexError" not in caplog.text


async def test_sizes_and_durations_are_counted_under_the_published_names(running: Running) -> None:
    await running.review(recorded("pod-create-bare"))
    for name in ("request_duration_seconds_count", "request_body_bytes_count"):
        assert running.registry.get_sample_value(f"tokenward_webhook_{name}") == 1
