"""The mTLS call to the authserver: what is believed, what is tried again, what goes no further."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from demo.pki import CertificateAuthority, Issued
from sidecar.timeouts import Timeouts
from tests.fakes.authserver import (
    Received,
    asks_for_an_upstream,
    held_until,
    refuse,
    release,
)
from tests.sidecar.harness import SPIFFE_ID, Authorities, Harness, harness, restart
from tests.support.svid_certificates import Pair, Shape, dns, ip


async def test_the_authserver_sees_this_workloads_certificate(r: Harness) -> None:
    await r.ask()
    assert r.authserver.received[0].uris == (SPIFFE_ID,)


async def test_connections_are_kept_and_used_again(r: Harness) -> None:
    for number in range(5):
        await r.ask(jwt=f"{number}.b.c")
    assert (len(r.authserver.received), r.authserver.connections) == (5, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 5},
        {"access_token": "two words"},
        {"access_token": "line\nbreak"},
        {"access_token": "ü"},
        {"issued_token_type": None},
        {"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"},
        {"token_type": None},
        {"token_type": "DPoP"},
        {"token_type": ["Bearer"]},
        {"upstream": None},
        {"upstream": 7},
        {"upstream": "gitlab"},
        {"expires_in": 0},
        {"expires_in": -5},
        {"expires_in": "3600"},
        {"expires_in": 3600.5},
        {"expires_in": True},
        {"expires_in": 10**12},
        {"cache_ttl": None},
        {"cache_ttl": -1},
        {"cache_ttl": "60"},
        {"cache_ttl": True},
        {"scope": ["repo"]},
        {"refresh_token": "canary"},
        {"id_token": "canary"},
        {"client_secret": "canary"},
    ],
    ids=str,
)
async def test_a_release_that_is_not_to_the_letter_is_neither_served_nor_kept(
    r: Harness, changes: dict[str, Any]
) -> None:
    r.authserver.then(lambda: release(**changes))
    reply = await r.ask({"upstream": "github"})
    assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
    assert b"canary" not in reply.raw
    assert r.metric("tokenward_sidecar_cache_entries") == 0
    assert len(r.authserver.received) == 1
    assert (await r.ask({"upstream": "github"})).status == 200


@pytest.mark.parametrize("upstream", [None, 7, "", "a b"])
async def test_a_release_names_its_upstream_whoever_asked(r: Harness, upstream: Any) -> None:
    r.authserver.then(lambda: release(upstream=upstream))
    assert (await r.ask()).status == 503


async def test_a_release_is_json_by_its_own_word(r: Harness) -> None:
    r.authserver.then(lambda: web.Response(body=release().body, content_type="text/html"))
    assert (await r.ask()).status == 503


async def test_a_member_of_a_newer_authserver_does_no_harm_and_goes_no_further(r: Harness) -> None:
    r.authserver.then(lambda: release(novelty="canary"))
    reply = await r.ask()
    assert reply.status == 200
    assert b"canary" not in reply.raw


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>canary</html>", "text/html"),
        (b'{"access_token": "canary"}', "text/html"),
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b"canary", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"error": "canary", "error": "invalid_grant"}', "application/json"),
        (b"[" * 60_000, "application/json"),
        (b'{"access_token": "%b"}' % (b"canary" * 2_000_000), "application/json"),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else value,
)
@pytest.mark.parametrize("status", [200, 400])
async def test_what_is_no_answer_of_the_authserver_is_an_outage(
    r: Harness, status: int, body: bytes, content_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    r.authserver.then(lambda: web.Response(status=status, body=body, content_type=content_type))
    reply = await r.ask()
    assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
    assert b"canary" not in reply.raw
    assert not logged(caplog, "unexpected_failure")
    assert (await r.ask()).status == 200


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1])
async def test_an_answer_may_be_64_kib_long_and_no_longer(r: Harness, size: int) -> None:
    bare = release(access_token="").body
    assert isinstance(bare, bytes)
    r.authserver.then(lambda: release(access_token="x" * (size - len(bare))))
    assert (await r.ask()).status == (200 if size == 64 * 1024 else 503)


async def test_a_compressed_answer_is_not_unpacked(r: Harness) -> None:
    def compressed() -> web.Response:
        response = release()
        response.enable_compression(web.ContentCoding.gzip)
        return response

    r.authserver.then(compressed)
    assert (await r.ask()).status == 503
    assert r.authserver.received[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(r: Harness, status: int) -> None:
    location = {"Location": f"{r.authserver.url}/elsewhere"}
    r.authserver.then(lambda: web.Response(status=status, headers=location))
    assert (await r.ask()).status == 503
    assert [request.path for request in r.authserver.received] == ["/internal/token-exchange"]


async def test_cookies_are_not_kept(r: Harness) -> None:
    def with_cookie() -> web.Response:
        response = release()
        response.set_cookie("canary", "1")
        return response

    r.authserver.then(with_cookie)
    await r.ask()
    await r.ask({"upstream": "github"})
    assert "Cookie" not in r.authserver.received[1].headers


async def test_proxy_variables_have_no_effect(r: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await r.ask()).status == 200


async def test_an_exchange_that_got_no_answer_is_tried_again(r: Harness) -> None:
    async def hang_up(received: Received) -> web.StreamResponse:
        received.hang_up()
        return web.Response()

    r.authserver.then_slowly(hang_up)
    assert (await r.ask()).status == 200
    assert len(r.authserver.received) == 2


async def test_a_503_is_tried_again_twice_and_no_more(r: Harness) -> None:
    unavailable = lambda: refuse(503, "temporarily_unavailable")  # noqa: E731
    r.authserver.then(unavailable, unavailable)
    assert (await r.ask()).status == 200
    assert len(r.authserver.received) == 3
    r.authserver.then(unavailable, unavailable, unavailable)
    assert (await r.ask({"upstream": "github"})).status == 503
    assert len(r.authserver.received) == 6


async def test_a_503_that_asks_for_patience_is_not_tried_again_at_once(r: Harness) -> None:
    r.authserver.then(lambda: refuse(503, "temporarily_unavailable", retry_after=2))
    assert (await r.ask()).headers["Retry-After"] == "2"
    assert len(r.authserver.received) == 1


async def test_retries_have_a_budget(r: Harness) -> None:
    async def unavailable(_: Received) -> web.StreamResponse:
        return refuse(503, "temporarily_unavailable")

    r.authserver.always(unavailable)
    for number in range(20):
        assert (await r.ask(jwt=f"{number}.b.c")).status == 503
    assert len(r.authserver.received) == 20 + 10


async def test_work_goes_on_after_the_authserver_was_restarted(r: Harness) -> None:
    assert (await r.ask()).status == 200
    await r.authserver.stop()
    assert (await r.ask({"upstream": "github"})).status == 503
    assert (await r.ask()).status == 200  # from memory
    await restart(r.authserver, r.folder)
    assert (await r.ask({"upstream": "github"})).status == 200


async def test_a_restart_between_two_calls_is_not_noticed(r: Harness) -> None:
    for number in range(3):
        assert (await r.ask(jwt=f"{number}.b.c")).status == 200
        await restart(r.authserver, r.folder)


async def test_a_stalled_authserver_costs_its_callers_the_deadline_and_no_more(
    tmp_path: Path, authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    async with harness(tmp_path, authorities, timeouts=Timeouts(exchange=0.05)) as r:
        never = asyncio.Event()
        r.authserver.always(held_until(never))
        stalled = await r.ask()
        assert (stalled.status, stalled.json["action"]) == (503, "retry")
        assert fields(logged(caplog, "exchange_failed")[0])["reason"] == "timeout"
        never.set()


async def test_an_answer_that_drips_is_cut_off(
    tmp_path: Path, authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()

    async def drip(received: Received) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(received.request)
        await response.write(b"{")
        await ended.wait()
        return response

    async with harness(tmp_path, authorities, timeouts=Timeouts(exchange=0.2)) as r:
        r.authserver.always(drip)
        assert (await r.ask()).status == 503
        assert fields(logged(caplog, "exchange_failed")[0])["reason"] == "timeout"
        ended.set()


async def test_while_the_authserver_stalls_memory_goes_on_answering(r: Harness) -> None:
    assert (await r.ask()).status == 200
    released = asyncio.Event()
    r.authserver.always(held_until(released))
    stalled = asyncio.create_task(r.ask({"upstream": "github"}))
    await r.authserver.until_received(2)
    assert (await r.ask()).status == 200
    released.set()
    assert (await stalled).status == 200


def expired(authorities: Authorities) -> Issued:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return authorities.server.issue_server(lifetime=timedelta(hours=1), now=yesterday)


def of_another_host(authorities: Authorities) -> Issued:
    return authorities.server.issue_server(dns=("authserver.example",), ips=("127.0.0.2",))


def of_the_workloads_ca(authorities: Authorities) -> Issued:
    return authorities.workloads.issue_server()


def of_a_stranger(_: Authorities) -> Issued:
    return CertificateAuthority.create("stranger").issue_server()


def without_authority_key_id(authorities: Authorities) -> Issued:
    server_ca = Pair(authorities.server.certificate, authorities.server.key)
    names = (dns("localhost"), ip(127, 0, 0, 1))
    return server_ca.issue(Shape(names=names, authority_id=False)).issued()


@pytest.mark.parametrize(
    ("certificate", "rule"),
    [
        (expired, "expired"),
        (of_another_host, "mismatch"),
        (of_the_workloads_ca, "self-signed certificate in certificate chain"),
        (of_a_stranger, "issuer certificate"),
        (without_authority_key_id, "Missing Authority Key Identifier"),
    ],
)
async def test_an_authserver_that_is_not_ours_is_told_nothing(
    tmp_path: Path,
    authorities: Authorities,
    certificate: Callable[[Authorities], Issued],
    rule: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    issued = certificate(authorities)
    async with harness(tmp_path, authorities, server_certificate=issued) as r:
        assert (await r.ask()).status == 503
        assert not r.authserver.received
    (record,) = logged(caplog, "exchange_failed")
    assert fields(record)["reason"] == "untrusted"
    assert rule in fields(record)["openssl"]


async def test_a_certificate_the_authserver_refuses_is_an_outage_that_is_explained(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = CertificateAuthority.create("stranger")
    (r.folder / "workloads-ca.pem").write_bytes(stranger.certificate_pem)
    await restart(r.authserver, r.folder)
    reply = await r.ask()
    assert (reply.status, reply.json["action"]) == (503, "retry")
    assert r.authserver.refused_handshakes
    [record] = logged(caplog, "exchange_failed")
    assert fields(record)["reason"] in ("disconnected", "unreachable")


async def test_trouble_is_said_once_and_so_is_its_end(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="tokenward")
    r.authserver.then(*[lambda: refuse(403, "unauthorized_client")] * 3)
    for number in range(5):
        reply = await r.ask(jwt=f"{number}.b.c")
        refused = "does not admit this workload" in reply.json.get("error_description", "")
        assert refused == (number < 3)
    [failed] = logged(caplog, "exchange_failed")
    assert fields(failed)["reason"] == "identity_refused"
    assert len(logged(caplog, "exchange_works_again")) == 1


async def test_trouble_that_lasts_is_repeated_now_and_then(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    r.authserver.then(*[lambda: refuse(403, "unauthorized_client")] * 3)
    for seconds in (29, 1, 1):
        await r.ask()
        r.clock.advance(seconds)
    assert len(logged(caplog, "exchange_failed")) == 2


async def test_nothing_secret_is_logged(r: Harness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = "canary-token"
    r.authserver.then(
        lambda: release(access_token=secret),
        lambda: refuse(400, "invalid_grant"),
        lambda: refuse(500, secret),
        lambda: release(refresh_token=secret),
        lambda: web.Response(body=b"canary-token", content_type="text/html"),
    )
    jwt = "canary-head.canary-claims.canary-signature"
    for upstream in ("a", "b", "c", "d", "e"):
        await r.ask({"upstream": upstream}, jwt=jwt)
    await r.ask({"rejected_token": secret}, jwt=jwt)
    await r.ask({"canary-member": 1}, jwt=jwt, headers={"X-Canary": "canary-header"})
    await r.ask(jwt=jwt, path="/?canary-query")
    await r.send(b"canary\r\n\r\n")
    assert len(caplog.records) > 8
    assert not [record for record in caplog.records if "canary" in str(vars(record))]


@pytest.mark.parametrize("error", ["invalid_target", "invalid_request"])
async def test_a_caller_that_must_name_an_upstream_is_told_so_and_nobody_signs_in_again(
    r: Harness, error: str
) -> None:
    r.authserver.then(lambda: asks_for_an_upstream(error), lambda: asks_for_an_upstream(error))
    reply = await r.ask()
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert reply.json["action"] == "fix_request"
    # Whoever named one and hears the same is no owner.
    named = await r.ask({"upstream": "github"})
    assert named.status == {"invalid_target": 404, "invalid_request": 401}[error]


@pytest.mark.parametrize(
    ("answered", "result"),
    [
        ((400, "invalid_request"), "invalid_token"),
        ((400, "invalid_grant"), "reauthentication_required"),
        ((429, "any"), "rate_limited"),
        ((403, "any"), "temporarily_unavailable"),
    ],
    ids=str,
)
async def test_exchanges_are_timed_by_result(
    r: Harness, answered: tuple[int, str], result: str
) -> None:
    r.authserver.then(lambda: refuse(*answered))
    await r.ask()
    name = "tokenward_sidecar_exchange_duration_seconds_count"
    assert r.metric(name, result=result) == 1


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if record.msg == event]


def fields(record: Any) -> dict[str, Any]:
    return dict(record.fields)
