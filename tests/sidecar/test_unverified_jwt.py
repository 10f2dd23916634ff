"""What cannot be good for this workload is refused without an exchange; all else is exchanged."""

import base64
import json
from typing import Any

import pytest

from tests.sidecar.harness import Harness

RESOURCE, ISSUER = "https://github-mcp.example.com/mcp", "https://auth.example.com"


def jwt(r: Harness, **changes: Any) -> str:
    """A JWT for this workload that lives for 15 minutes; a change to None drops a claim."""
    claims = {"iss": ISSUER, "aud": RESOURCE, "exp": int(r.wall()) + 900} | changes
    present = {name: value for name, value in claims.items() if value is not None}
    payload = base64.urlsafe_b64encode(json.dumps(present).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJFUzI1NiJ9.{payload}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example.com"},
        {"iss": f"{ISSUER}/"},
        {"aud": "https://slack-mcp.example.com/mcp"},
        {"aud": "https://github-mcp.example.com"},
        {"aud": "http://github-mcp.example.com/mcp"},
        {"exp": 1},
        {"exp": 1.5},
    ],
    ids=str,
)
async def test_a_jwt_that_cannot_be_good_costs_no_exchange(
    r: Harness, changes: dict[str, Any]
) -> None:
    reply = await r.ask(jwt=jwt(r, **changes))
    assert (reply.status, reply.json["error"]) == (401, "invalid_token")
    assert reply.json["action"] == "reauthenticate"
    assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]
    assert r.authserver.received == []


@pytest.mark.parametrize(
    ("changes", "reason", "setting"),
    [
        ({"aud": "https://slack-mcp.example.com/mcp"}, "jwt_for_another_resource", "RESOURCE"),
        ({"iss": "https://other.example.com"}, "jwt_of_another_issuer", "ISSUER"),
        ({"exp": 1}, "jwt_expired", None),
    ],
)
async def test_an_operator_sees_why_a_sidecar_refuses_jwts_by_itself(
    r: Harness,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    reason: str,
    setting: str | None,
) -> None:
    """Nobody else does: the authserver is not asked."""

    def warnings() -> list[dict[str, str]]:
        records = [record for record in caplog.records if record.msg == "jwt_does_not_fit"]
        return [vars(record)["fields"] for record in records]

    for number in range(3):
        await r.ask(jwt=jwt(r, jti=str(number), **changes))
    assert r.metric("tokenward_sidecar_refused_jwts_total", reason=reason) == 3
    if setting is None:
        assert warnings() == []  # ordinary clients refresh after that
        return
    (warning,) = warnings()
    assert warning["reason"] == reason
    assert f"TOKENWARD_{setting}" in warning["remedy"]
    r.clock.advance(301)
    await r.ask(jwt=jwt(r, **changes))
    assert len(warnings()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"iss": None, "aud": None, "exp": None},
        {"aud": "HTTPS://github-mcp.EXAMPLE.com:443/mcp/"},
        {"aud": [RESOURCE]},
        {"aud": ["https://slack-mcp.example.com/mcp"]},
        {"aud": "https://[broken"} | {"aud": None},
        {"exp": "1"},
        {"exp": True},
    ],
    ids=str,
)
async def test_whatever_is_not_certain_is_the_authservers_to_say(
    r: Harness, changes: dict[str, Any]
) -> None:
    assert (await r.ask(jwt=jwt(r, **changes))).status == 200
    assert len(r.authserver.received) == 1


@pytest.mark.parametrize(("past", "exchanges"), [(0, 1), (59, 1), (62, 0)])
async def test_a_jwt_that_ended_within_the_last_minute_is_exchanged(
    r: Harness, past: int, exchanges: int
) -> None:
    await r.ask(jwt=jwt(r, exp=int(r.wall()) - past))
    assert len(r.authserver.received) == exchanges


async def test_a_clock_that_is_wrong_refuses_nothing(r: Harness) -> None:
    """What the authserver's clock allows is allowed, and a clock that outlives our certificate."""
    first, second, third, fourth = (jwt(r, jti=str(number)) for number in range(4))
    assert (await r.ask(jwt=first)).status == 200
    r.wall.advance(3600)
    assert (await r.ask(jwt=second)).status == 200
    r.clock.advance(1300)  # by now it is over by the authserver's clock too
    assert (await r.ask(jwt=third)).status == 401
    r.wall.advance(365 * 86400)
    await r.sidecar.tick()
    r.clock.advance(-1300)
    assert (await r.ask(jwt=fourth)).status == 200


@pytest.mark.parametrize("payload", ["", "!", "W10", "e30x", "_w", "ew"])
async def test_a_payload_that_cannot_be_read_is_not_ours_to_judge(r: Harness, payload: str) -> None:
    reply = await r.ask(jwt=f"eyJhbGciOiJFUzI1NiJ9.{payload}.c2lnbmF0dXJl")
    assert reply.status == (401 if payload in ("", "!") else 200)  # the two have no JWT's shape


# One request id from the MCP server's call to the authserver's log.

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"X-Request-Id": "mcp-call.7"}, "mcp-call.7"),
        ({"X-Request-Id": "mcp-call.7", "traceparent": TRACEPARENT}, "mcp-call.7"),
        ({"traceparent": TRACEPARENT}, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ({"X-Request-Id": "short"}, None),
        ({"X-Request-Id": "x" * 65}, None),
        ({"X-Request-Id": 'abcdefgh"'}, None),
        ({"X-Request-Id": "abcd efgh"}, None),
        ({"traceparent": TRACEPARENT.replace("00-4", "ff-4")}, None),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"{TRACEPARENT}x"}, None),
        ({}, None),
    ],
    ids=str,
)
async def test_one_request_id_goes_from_the_caller_through_to_the_authserver(
    r: Harness, headers: dict[str, str], request_id: str | None
) -> None:
    refused = await r.ask({"no": "member"}, headers=headers)
    found = refused.json["request_id"]
    assert refused.headers["X-Request-Id"] == found
    assert found == request_id if request_id else len(found) == 16
    assert (await r.ask(headers=headers)).status == 200
    (sent,) = (received.headers for received in r.authserver.received)
    assert sent["X-Request-Id"] == request_id if request_id else len(sent["X-Request-Id"]) == 16
    whole = headers.get("traceparent") == TRACEPARENT
    assert sent.get("traceparent") == (TRACEPARENT if whole else None)


async def test_a_traceparent_is_of_one_request_only(r: Harness) -> None:
    await r.ask(headers={"traceparent": TRACEPARENT})
    await r.ask({"upstream": "github"})
    first, second = (received.headers for received in r.authserver.received)
    assert first["traceparent"] == TRACEPARENT
    assert "traceparent" not in second
    assert first["X-Request-Id"] != second["X-Request-Id"]
