"""The internal listener: mTLS, one route, one shape of request, and nothing believed for long."""

import asyncio
import base64
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from yarl import URL

from authserver.config.loader import load
from authserver.internal.listener import LIMITS
from authserver.listener_tls import internal_material
from chassis.http1.listener import Listener
from tests.support.deployment import Deployment, deployed
from tests.support.workloads import (
    DENIED,
    FORM,
    NOTES_SERVER,
    ROUTE,
    TASKS_SERVER,
    audited,
    form,
    line,
    reconfigure,
    replica,
    verdict,
)

NOTES_ID = "spiffe://example.org/ns/mcp-servers/mcpserver/notes"


async def test_a_caller_without_a_certificate_gets_no_http(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        with pytest.raises(aiohttp.ClientError):
            await world.exchange_with(world.tls(None), "jwt")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/internal", 404),
        (f"{ROUTE}/", 404),
        (f"/{ROUTE}", 404),
        ("/internal/Token-Exchange", 404),
        ("/internal/%74oken-exchange", 404),
        ("/internal/./token-exchange", 404),
        (f"{ROUTE};x", 404),
        ("/oauth/token", 404),
        ("/oauth/authorize", 404),
        ("/.well-known/jwks.json", 404),
        ("/metrics", 404),
        ("/healthz", 404),
    ],
)
async def test_the_internal_listener_has_one_route(tmp_path: Path, path: str, status: int) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        for method in ("GET", "POST"):
            url = URL(f"{world.internal_url}{path}", encoded=True)
            async with sidecar.http.request(method, url, data=form(jwt)) as answer:
                assert answer.status == status


async def test_the_public_listener_has_no_internal_route(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        for path in (ROUTE, f"{ROUTE}/", "/internal/../internal/token-exchange"):
            answer = await world.call("POST", path, data=form(jwt))
            assert answer.status == 404
            assert "access_token" not in answer.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_only_post_is_answered(tmp_path: Path, method: str) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        answer = await sidecar.send(form(jwt), method=method)
        assert answer.status == (501 if method == "TRACE" else 400)
        assert "access_token" not in answer.text


async def test_http_1_0_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        with audited(caplog) as trail:
            async with line(world, version=aiohttp.HttpVersion10) as sidecar:
                assert verdict(await sidecar.exchange(jwt)) == DENIED
        assert trail.reason == "not_an_http_1_1_post"


def body(jwt: str, extra: str = "") -> str:
    return "&".join(f"{k}={v.replace(':', '%3A')}" for k, v in form(jwt).items()) + extra


SHAPES: list[tuple[str, Any, dict[str, str], str]] = [
    ("no body", "", {}, "no_grant_type"),
    ("json", '{"grant_type": "x"}', {"Content-Type": "application/json"}, "media_type"),
    ("another text type", None, {"Content-Type": "text/plain"}, "media_type"),
    ("multipart", None, {"Content-Type": "multipart/form-data; boundary=x"}, "media_type"),
    ("an encoding", None, {"Content-Encoding": "identity"}, "media_type"),
    ("not ASCII", "subject_token=é".encode(), {}, "malformed_form"),
    ("bad percent", "&x=%zz", {}, "malformed_form"),
    ("NUL", "&audience=a%00b", {}, "malformed_form"),
    ("bad UTF-8", "&audience=%ff", {}, "malformed_form"),
    ("a hundred fields", "".join(f"&x{n}=1" for n in range(120)), {}, "malformed_form"),
    ("two grant types", "&grant_type=password", {}, "malformed_form"),
    ("the same token twice", "&subject_token=x", {}, "malformed_form"),
    ("two audiences", "&audience=acme&audience=acme", {}, "malformed_form"),
    ("an unknown parameter", "&tsid=x", {}, "unknown_parameter"),
    ("an actor", "&actor_token=x", {}, "unknown_parameter"),
    ("another kind of token wanted", "&requested_token_type=x", {}, "requested_token_type"),
    ("min_ttl in words", "&min_ttl=ten", {}, "min_ttl"),
    ("min_ttl below zero", "&min_ttl=-1", {}, "min_ttl"),
    ("min_ttl signed", "&min_ttl=%2B1", {}, "min_ttl"),
    ("min_ttl broken", "&min_ttl=1.5", {}, "min_ttl"),
    ("min_ttl too long", "&min_ttl=601", {}, "min_ttl"),
    ("min_ttl endless", "&min_ttl=" + "9" * 400, {}, "min_ttl"),
    ("min_ttl in other digits", "&min_ttl=%D9%A1", {}, "min_ttl"),
    ("a hash that is none", "&rejected_token_sha256=x", {}, "rejected_token_sha256"),
    ("a hash in other letters", "&rejected_token_sha256=%C3%A9", {}, "rejected_token_sha256"),
    ("17 KiB", "&audience=" + "x" * 17 * 1024, {}, "body_too_large"),
]


@pytest.mark.parametrize(
    ("extra", "headers", "reason"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES]
)
async def test_a_malformed_request_is_refused_before_its_token_is_looked_at(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    extra: str | bytes | None,
    headers: dict[str, str],
    reason: str,
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        good = body("not.a.jwt")
        data = good + extra if isinstance(extra, str) and extra.startswith("&") else extra
        with audited(caplog) as trail:
            answer = await sidecar.send(
                good if data is None else data, headers={"Content-Type": FORM} | headers
            )
        assert (verdict(answer), trail.reason) == (DENIED, reason)


@pytest.mark.parametrize(
    ("changes", "status", "error", "reason"),
    [
        ({"grant_type": None}, 400, "invalid_request", "no_grant_type"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", "unsupported_grant_type"),
        ({"subject_token_type": None}, 400, "invalid_request", "subject_token_type"),
        ({"subject_token_type": "id_token"}, 400, "invalid_request", "subject_token_type"),
        ({"subject_token": None}, 400, "invalid_request", "no_subject_token"),
        ({"subject_token": ""}, 400, "invalid_request", "no_subject_token"),
        ({"subject_token": "x" * 8193}, 400, "invalid_request", "jwt_not_a_compact_jws"),
        ({}, 400, "invalid_request", "jwt_not_a_compact_jws"),
    ],
)
async def test_parameters_must_be_those_of_a_token_exchange(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, str | None],
    status: int,
    error: str,
    reason: str,
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        with audited(caplog) as trail:
            fields = {k: v for k, v in (form("not a jwt") | changes).items() if v is not None}
            answer = await sidecar.send(fields)
        assert (verdict(answer), trail.reason) == ((status, {"error": error}), reason)


async def test_a_token_in_the_query_is_refused(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        for query in ("?x=1", f"?subject_token={jwt}"):
            assert verdict(await sidecar.send(form(jwt), path=ROUTE + query)) == DENIED


async def test_a_compressed_body_is_not_unpacked(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        deflated = {"Content-Encoding": "deflate", "Content-Type": FORM}
        assert verdict(await sidecar.send(body(jwt), headers=deflated)) == DENIED


async def test_a_caller_that_goes_away_in_its_request_is_no_failure_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        with audited(caplog) as trail:
            _, writer = await asyncio.open_connection(
                "127.0.0.1",
                URL(world.internal_url).port,
                ssl=world.tls(world.svid(NOTES_SERVER)),
                server_hostname="localhost",
            )
            head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
            writer.write(f"{head}Content-Length: 50\r\n\r\nsubject".encode())
            writer.close()
            await writer.wait_closed()
            await world.exchange(TASKS_SERVER, "x")  # by then, the first one was noticed
        reasons = [event["reason"] for event in trail.events]
        assert reasons == ["body_cut_off", "jwt_not_a_compact_jws"]


async def test_a_body_that_never_ends_is_given_up_and_others_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert LIMITS.body_seconds == 10
    async with (
        deployed(tmp_path) as deployment,
        replica(deployment, limits=LIMITS._replace(body_seconds=0.1)) as world,
    ):
        jwt = (await world.signed_in()).access_token
        head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
        with audited(caplog) as trail:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                URL(world.internal_url).port,
                ssl=world.tls(world.svid(TASKS_SERVER)),
                server_hostname="localhost",
            )
            writer.write(f"{head}Content-Length: 50\r\n\r\nsubject".encode())
            assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
            async with asyncio.timeout(10):
                assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
            writer.close()
        assert trail.reason == "slow_body"


@pytest.mark.parametrize("sent", [b"", b"POST "], ids=["nothing", "half a head"])
async def test_a_head_that_never_ends_is_given_up_and_an_idle_sidecar_is_not(
    tmp_path: Path, sent: bytes
) -> None:
    """A workload has shown a certificate, and may misbehave all the same."""
    async with (
        deployed(tmp_path) as world,
        replica(world, limits=LIMITS._replace(head_seconds=0.1)) as impatient,
        line(impatient) as idle,
    ):
        jwt = (await world.signed_in()).access_token
        assert (await idle.exchange(jwt)).status == 200
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            URL(impatient.internal_url).port,
            ssl=world.tls(world.svid(TASKS_SERVER)),
            server_hostname="localhost",
        )
        writer.write(sent)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        assert (await idle.exchange(jwt)).status == 200
        assert idle.connections == 1


async def said(reader: asyncio.StreamReader) -> str:
    """All that came before the connection ended."""
    async with asyncio.timeout(10):
        return (await reader.read()).decode()


async def opened(world: Deployment) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        "127.0.0.1",
        URL(world.internal_url).port,
        ssl=world.tls(world.svid(TASKS_SERVER)),
        server_hostname="localhost",
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"canary\r\n\r\n",
        b"POST /canary HTTP/1.1\r\nHost: x\r\nContent-Length: canary\r\n\r\n",
        b"POST /internal/token-exchange HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /canary HTTP/1.1\r\n\r\n",
        b"GET /canary HTTP/1.1\r\nHost: x\r\n" + b"canary: %d\r\n" * 65 % (*range(65),) + b"\r\n",
    ],
    ids=["no HTTP", "no length", "two lengths", "many fields"],
)
async def test_what_is_no_request_gets_one_answer_that_repeats_nothing(
    tmp_path: Path, sent: bytes
) -> None:
    async with deployed(tmp_path) as world:
        reader, writer = await opened(world)
        writer.write(sent)
        head, _, content = (await said(reader)).partition("\r\n\r\n")
        writer.close()
        assert head.startswith("HTTP/1.1 4")
        assert content == '{"error":"invalid_request"}'
        fields = head.lower()
        assert "\r\nx-request-id: " in fields
        assert "\r\ncache-control: no-store" in fields
        assert "\r\nconnection: close" in fields
        for word in ("canary", "\r\nserver:", "aiohttp", "python"):
            assert word not in fields
        status = head.split()[1]
        assert counted(world, "requests_total", route="unmatched", status=status) == 1


def counted(world: Deployment, name: str, **labels: str) -> float | None:
    return world.server.registry.get_sample_value(f"tokenward_authserver_{name}", labels)


async def test_no_answer_names_its_software(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        for answer in (
            await sidecar.exchange(jwt),
            await sidecar.exchange("x"),
            await sidecar.send("", path="/"),
        ):
            assert "Server" not in answer.headers
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_all_connections_together_have_a_limit(tmp_path: Path) -> None:
    async with (
        deployed(tmp_path) as deployment,
        replica(deployment, limits=LIMITS._replace(connections=1)) as world,
        line(world) as first,
    ):
        jwt = (await world.signed_in()).access_token
        assert (await first.exchange(jwt)).status == 200
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await world.exchange(TASKS_SERVER, "x")
        assert (await first.exchange(jwt)).status == 200
        assert first.connections == 1


async def test_an_exchange_that_draining_cuts_short_is_told_to_come_back(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        tls, _ = internal_material(
            load(world.folder / "authserver.yaml").listeners.internal
        ).build()
        server = world.server.internal().server()
        bound = await Listener("internal", "127.0.0.1", 0, server, tls).bind(drain_seconds=0.0)
        reader, writer = await opened(replace(world, internal_url=f"https://x:{bound.port}"))
        head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
        writer.write(f"{head}Content-Length: 50\r\n\r\nsubject".encode())
        while not any(not connection.idle for connection in server.connections):
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(bound.cleanup())
        text = await said(reader)
        writer.close()
        await draining
        assert text.startswith("HTTP/1.1 503 ")
        assert text.endswith('{"error":"temporarily_unavailable"}')


@pytest.mark.parametrize("token_type", ["jwt", "access_token"])
async def test_both_names_of_our_token_type_are_understood(tmp_path: Path, token_type: str) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        urn = f"urn:ietf:params:oauth:token-type:{token_type}"
        assert (await sidecar.exchange(jwt, subject_token_type=urn)).status == 200


async def test_no_header_says_who_calls(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world, TASKS_SERVER) as sidecar:
        jwt = (await world.signed_in()).access_token
        spoofed = {
            "X-Forwarded-Client-Cert": f"By=x;URI={NOTES_ID}",
            "Client-Cert": ":" + base64.b64encode(world.svid(NOTES_SERVER).chain).decode() + ":",
            "X-SSL-Client-Cert": NOTES_ID,
            "X-SSL-Client-S-DN": NOTES_ID,
            "X-Forwarded-For": "127.0.0.1",
            "Authorization": f"Bearer {jwt}",
        }
        assert verdict(await sidecar.send(form(jwt), headers=spoofed)) == DENIED


async def test_every_answer_has_an_id_of_its_own_that_the_audit_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        answers = [await sidecar.exchange("x", audience="chosen") for _ in range(2)]
        answers.append(await sidecar.send("", path="/"))
        ids = {answer.headers["X-Request-Id"] for answer in answers}
        assert len(ids) == 3
        assert all(len(each) >= 16 for each in ids)


# A connection outlives certificates and policies.


async def test_a_certificate_that_expires_is_refused_on_its_live_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        assert (await sidecar.exchange(jwt)).status == 200
        world.clock.advance(4 * 3600 + 60)  # the certificate was issued a moment after the start
        with audited(caplog) as trail:
            answer = await sidecar.exchange(jwt)
        assert verdict(answer) == (401, {"error": "invalid_client"})
        assert trail.reason == "certificate_not_valid_now"
        assert sidecar.connections == 1
        assert answer.headers["Connection"] == "close"
        await sidecar.exchange(jwt)
        assert sidecar.connections == 2


async def test_a_certificate_from_the_future_is_refused(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        world.clock.advance(-120)  # it was valid a minute before the start
        assert (await sidecar.exchange(jwt)).status == 401


@pytest.mark.parametrize("spelling", ["{:X}", "{:x}", "00{:X}", "colons"])
async def test_a_denied_serial_is_turned_away_however_it_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spelling: str
) -> None:
    async with deployed(tmp_path) as world:
        jwt = (await world.signed_in()).access_token
        issued = world.svid(NOTES_SERVER)
        number = x509.load_pem_x509_certificate(issued.certificate_pem).serial_number
        text = f"{number:040X}"
        pairs = ":".join(text[at : at + 2] for at in range(0, 40, 2))
        serial = pairs if spelling == "colons" else spelling.format(number)
        reconfigure(world, deniedCertificates={"serials": [serial]})
        async with replica(world) as stricter:
            with audited(caplog) as trail:
                answer = await stricter.exchange_with(world.tls(issued), jwt)
            assert verdict(answer) == (403, {"error": "unauthorized_client"})
            assert trail.reason == "certificate_denied"
            assert (await stricter.exchange(NOTES_SERVER, jwt)).status == 200


async def test_a_denied_identity_is_turned_away_with_every_certificate(tmp_path: Path) -> None:
    async with deployed(tmp_path, deniedCertificates={"spiffeIds": [NOTES_ID]}) as world:
        jwt = (await world.signed_in()).access_token
        answer = await world.exchange(NOTES_SERVER, jwt)
        assert verdict(answer) == (403, {"error": "unauthorized_client"})


@pytest.mark.parametrize(
    ("allowed", "status"),
    [
        ({"namespaces": ["*"], "names": ["*"]}, 200),
        ({"namespaces": ["mcp-servers"], "names": ["notes"]}, 200),
        ({"namespaces": ["mcp-servers"], "names": ["note"]}, 403),
        ({"namespaces": ["mcp"], "names": ["*"]}, 403),
        ({"namespaces": ["*"]}, 403),
        ({"names": ["*"]}, 403),
        ({}, 403),
        ({"namespaces": ["mcp-*"], "names": ["*"]}, 403),
    ],
)
async def test_only_workloads_written_out_are_served(
    tmp_path: Path, allowed: dict[str, list[str]], status: int
) -> None:
    async with deployed(tmp_path, allowedWorkloads=allowed) as world:
        jwt = (await world.signed_in()).access_token
        answer = await world.exchange(NOTES_SERVER, jwt)
        assert answer.status == status
        assert status == 200 or answer.json() == {"error": "unauthorized_client"}


async def test_an_old_connection_is_closed_after_its_answer(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, line(world) as sidecar:
        jwt = (await world.signed_in()).access_token
        for seconds, connections in ((0, 1), (600, 1), (1, 1), (0, 2), (-1, 2), (0, 3)):
            world.clock.advance(seconds)
            assert (await sidecar.exchange(jwt)).status == 200
            assert sidecar.connections == connections


# Limits.


async def test_a_workload_is_slowed_down_alone_and_is_served_again_in_time(tmp_path: Path) -> None:
    async with deployed(tmp_path, limits={"releasesPerWorkloadPerSecond": 2}) as world:
        jwt = (await world.signed_in()).access_token
        async with line(world) as sidecar, line(world, TASKS_SERVER) as neighbour:
            answers = [await sidecar.exchange(jwt) for _ in range(5)]
            assert [answer.status for answer in answers] == [200] * 4 + [429]
            assert verdict(answers[-1]) == (429, {"error": "temporarily_unavailable"})
            assert int(answers[-1].headers["Retry-After"]) == 1
            assert (await neighbour.exchange(jwt)).status == 400
            world.clock.advance(1)
            statuses = [(await sidecar.exchange(jwt)).status for _ in range(3)]
            assert statuses == [200, 200, 429]


async def test_malformed_requests_take_nothing_from_the_limit_on_releases(tmp_path: Path) -> None:
    async with deployed(tmp_path, limits={"releasesPerWorkloadPerSecond": 1}) as world:
        jwt = (await world.signed_in()).access_token
        async with line(world) as sidecar:
            assert [(await sidecar.send("x")).status for _ in range(3)] == [400, 400, 400]
            assert [(await sidecar.exchange(jwt)).status for _ in range(3)] == [200, 200, 429]


async def test_only_jwts_that_fail_wait_where_many_have_failed(tmp_path: Path) -> None:
    """Decision 24: the limit on failures never holds up a JWT that is good."""
    async with deployed(tmp_path, limits={"failedTokensPerWorkloadPerMinute": 3}) as world:
        jwt = (await world.signed_in()).access_token
        async with line(world) as sidecar, line(world, TASKS_SERVER) as neighbour:
            statuses = [(await sidecar.exchange("bad")).status for _ in range(4)]
            assert statuses == [400, 400, 400, 429]
            held = await sidecar.exchange("worse")
            assert verdict(held) == (429, {"error": "temporarily_unavailable"})
            assert int(held.headers["Retry-After"]) == 21
            assert (await sidecar.exchange(jwt)).status == 200
            assert (await neighbour.exchange("bad")).status == 400
            world.clock.advance(21)
            assert (await sidecar.exchange("bad")).status == 400


async def test_expired_jwts_of_ours_are_no_failures(tmp_path: Path) -> None:
    """Eleven ordinary clients come back within a minute, each with a JWT that has just ended."""
    async with deployed(tmp_path) as world:
        clients = [await world.signed_in() for _ in range(11)]
        world.clock.advance(901 + 5)
        async with line(world) as sidecar:
            for client in clients:
                assert verdict(await sidecar.exchange(client.access_token)) == DENIED
                fresh = await world.refresh(client.client_id, client.refresh_token)
                assert (await sidecar.exchange(fresh.json()["access_token"])).status == 200


async def test_a_stranger_with_forged_jwts_is_not_noticed_by_signed_in_users(
    tmp_path: Path,
) -> None:
    """Ten times the limit for a minute: users with JWTs new to the server, and old ones."""
    async with deployed(tmp_path) as world:
        users = [await world.signed_in(user) for user in ("alice", "bob")]
        jwts = [user.access_token for user in users]
        statuses: list[int] = []
        forged_statuses: set[int] = set()
        async with line(world) as sidecar:
            for second in range(60):
                for number in range(2):  # 120 a minute, the limit is 10
                    head, claims, _ = jwts[0].split(".")
                    signature = f"{second:03d}{number:03d}".ljust(86, "A")
                    answer = await sidecar.exchange(f"{head}.{claims}.{signature}")
                    forged_statuses.add(answer.status)
                if second % 20 == 10:
                    renewed = await world.refresh(users[0].client_id, users[0].refresh_token)
                    users[0] = replace(users[0], **renewed.json())
                    jwts[0] = users[0].access_token
                statuses += [(await sidecar.exchange(jwt)).status for jwt in jwts]
                world.clock.advance(1)
        assert forged_statuses == {400, 429}
        assert statuses == [200] * 120


async def test_above_the_bound_on_verifications_jwts_accepted_before_go_first(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path, limits={"verificationsPerWorkloadPerSecond": 2}) as world:
        known, new = [(await world.signed_in()).access_token for _ in range(2)]
        async with line(world) as sidecar:
            assert (await sidecar.exchange(known)).status == 200
            head, claims, _ = known.split(".")
            await sidecar.exchange(f"{head}.{claims}.{'A' * 86}")
            held = await sidecar.exchange(new)
            assert verdict(held) == (429, {"error": "temporarily_unavailable"})
            assert (await sidecar.exchange(known)).status == 200
            # Neither form nor audience costs a verification, whatever else is wrong.
            assert (await sidecar.exchange("bad")).status == 400
            world.clock.advance(1)
            assert (await sidecar.exchange(new)).status == 200


async def test_good_tokens_do_not_count_as_bad_ones(tmp_path: Path) -> None:
    async with deployed(tmp_path, limits={"failedTokensPerWorkloadPerMinute": 1}) as world:
        jwt = (await world.signed_in()).access_token
        async with line(world) as sidecar:
            for _ in range(5):
                assert (await sidecar.exchange(jwt)).status == 200
                assert (await sidecar.exchange(jwt, audience="unknown")).status == 400
