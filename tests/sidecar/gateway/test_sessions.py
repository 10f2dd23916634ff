"""A session of the app belongs to the user and client that it was given to (amendment 17)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.http1.errors import Malformed
from chassis.http1.request import Headers
from sidecar.gateway.session_bindings import Holder, SessionBindings
from sidecar.gateway.session_ids import FirstEvent, ids_of_request
from tests.sidecar.gateway.app import Seen, Writer, response
from tests.sidecar.gateway.harness import Gated, by_user, gated, users
from tests.sidecar.harness import Authorities, Reply

JWT = users("alice", "bob")


@pytest.fixture
async def g(tmp_path: Path, authorities: Authorities) -> AsyncIterator[Gated]:
    async with gated(tmp_path, authorities) as gate:
        gate.authserver.always(by_user)
        yield gate


async def begin(g: Gated, user: str = "alice", session_id: str = "session-a") -> None:
    g.app.then = [response(200, b"{}", f"Mcp-Session-Id: {session_id}")]
    reply = await g.call(jwt=JWT[user])
    assert (reply.status, reply.headers["Mcp-Session-Id"]) == (200, session_id)


async def use(g: Gated, user: str, session_id: str = "session-a", **options: str) -> Reply:
    return await g.call(jwt=JWT[user], headers={"Mcp-Session-Id": session_id}, **options)


async def test_a_session_is_its_users_alone(g: Gated) -> None:
    await begin(g)
    assert (await use(g, "alice")).status == 200
    assert g.app.last.get("mcp-session-id") == "session-a"
    seen = len(g.app.requests)
    reply = await use(g, "bob")
    assert (reply.status, reply.json["error"]) == (404, "unknown_session")
    assert len(g.app.requests) == seen


async def test_a_session_that_nobody_was_given_is_404(g: Gated) -> None:
    assert (await use(g, "alice")).status == 404
    assert (await use(g, "alice", method="GET")).status == 404
    assert g.app.requests == []


async def test_another_client_of_the_same_user_has_other_sessions(g: Gated) -> None:
    await begin(g)
    elsewhere = f"{JWT['alice']}2"
    g.authserver.then(lambda: _release("alice", "another-client"))
    reply = await g.call(jwt=elsewhere, headers={"Mcp-Session-Id": "session-a"})
    assert reply.status == 404


def _release(sub: str, client_id: str):  # type: ignore[no-untyped-def]
    from tests.fakes.authserver import release

    return release(sub=sub, client_id=client_id)


async def test_an_app_that_gives_one_session_to_two_users_is_502(g: Gated) -> None:
    await begin(g)
    g.app.then = [response(200, b"for bob", "Mcp-Session-Id: session-a")]
    reply = await g.call(jwt=JWT["bob"])
    assert (reply.status, reply.json["error"]) == (502, "session_conflict")
    assert b"for bob" not in reply.raw
    assert (await use(g, "alice")).status == 200


async def test_delete_ends_the_binding_where_the_app_ends_the_session(g: Gated) -> None:
    await begin(g)
    g.app.then = [response(405, b"")]
    assert (await use(g, "alice", method="DELETE")).status == 405
    assert (await use(g, "alice", method="DELETE")).status == 200
    assert (await use(g, "alice")).status == 404


async def test_an_open_path_binds_nothing(tmp_path: Path, authorities: Authorities) -> None:
    async with gated(tmp_path, authorities, {"GATEWAY_OPEN_PATHS": "/healthz"}) as g:
        g.authserver.always(by_user)
        g.app.then = [response(200, b"", "Mcp-Session-Id: session-a")]
        await g.call("/healthz", method="GET", jwt=None)
        assert (await use(g, "alice")).status == 404


async def test_last_event_id_needs_a_session(g: Gated) -> None:
    await g.call(jwt=JWT["alice"], method="GET", headers={"Last-Event-ID": "7"})
    assert g.app.last.get("last-event-id") is None
    await begin(g)
    headers = {"Last-Event-ID": "7", "Mcp-Session-Id": "session-a"}
    await g.call(jwt=JWT["alice"], method="GET", headers=headers)
    assert g.app.last.get("last-event-id") == "7"


async def test_the_older_transport_names_its_session_in_the_first_event(g: Gated) -> None:
    """Its id is in the query of a URL that an event names, and in no header."""
    go_on = asyncio.Event()

    async def events(seen: Seen, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (b": hello\n\n", b"event: endpoint\nda", b"ta: /messages/?session_id=s1\n\n"):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        await go_on.wait()
        writer.write(b"0\r\n\r\n")
        return True

    assert (await g.call("/messages/?session_id=s1", jwt=JWT["alice"])).status == 404
    g.app.then = [events]
    headers = {"Authorization": f"Bearer {JWT['alice']}"}
    async with g.http.get(g.url("/sse"), headers=headers) as stream:
        assert (await stream.content.readuntil(b"s1\n\n")).startswith(b": hello")
        for query in ("session_id=s1", "a=b&sessionId=s1", "Session-Id=s%31"):
            assert (await g.call(f"/messages/?{query}", jwt=JWT["alice"])).status == 200
            assert (await g.call(f"/messages/?{query}", jwt=JWT["bob"])).status == 404
        go_on.set()
        assert await stream.read() == b""


def stream_of(event: bytes) -> bytes:
    """The app's response: a whole stream of this one event."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    return head + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)


async def stream(g: Gated, user: str) -> bytes:
    """Everything that comes back to a user who opens the older transport's stream."""
    fields = f"Host: a\r\nAuthorization: Bearer {JWT[user]}\r\n\r\n"
    return await g.send(f"GET /sse HTTP/1.1\r\n{fields}".encode(), end=False)


async def test_a_stream_that_names_the_session_of_another_is_cut(g: Gated) -> None:
    event = b"event: endpoint\ndata: /messages/?session_id=s1\n\n"
    g.app.usual = stream_of(event)
    assert (await g.call("/sse", method="GET", jwt=JWT["alice"])).raw == event
    assert b"s1" not in await stream(g, "bob")


@pytest.mark.parametrize("query", ["session_id=s1&sessionId=s2", "session_id=%0a", "sessionid="])
async def test_a_stream_whose_session_two_readers_would_read_differently_is_cut(
    g: Gated, query: str
) -> None:
    g.app.usual = stream_of(b"event: endpoint\ndata: /messages/?%b\n\n" % query.encode())
    raw = await stream(g, "alice")
    assert raw.startswith(b"HTTP/1.1 200 OK")
    assert b"/messages/" not in raw
    assert not raw.endswith(b"0\r\n\r\n")  # it never looks whole


@pytest.mark.parametrize(
    "sent",
    [
        "GET /?sessionId=s1&session_id=s1", "GET /?session_id=s1;sessionId=s2",
        "GET /?session_id=", "GET /?session_id=%0a", "GET /?session_id=a%20b",
        "GET /?%73ession%5fid=a+b", f"GET /?session_id={'a' * 600}",
    ],
)  # fmt: skip
async def test_a_session_that_two_readers_would_read_differently_is_400(
    g: Gated, sent: str
) -> None:
    line = f"{sent} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {JWT['alice']}\r\n\r\n"
    assert (await g.send(line.encode())).startswith(b"HTTP/1.1 400 ")
    assert g.app.requests == []


async def test_two_session_headers_are_400(g: Gated) -> None:
    await begin(g)
    raw = await g.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nMcp-Session-Id: session-a\r\n"
        b"Mcp-Session-Id: session-b\r\nContent-Length: 0\r\n\r\n" % JWT["alice"].encode()
    )
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert len(g.app.requests) == 1


async def test_header_and_query_must_both_be_this_users(g: Gated) -> None:
    await begin(g)
    await begin(g, "bob", "session-b")
    headers = {"Mcp-Session-Id": "session-a"}
    reply = await g.call("/?session_id=session-b", jwt=JWT["alice"], headers=headers)
    assert reply.status == 404


# The parts.


def test_the_least_recently_used_binding_goes_first() -> None:
    bindings, alice = SessionBindings(most=2), Holder("alice", "c")
    for session_id in ("1", "2"):
        assert bindings.bind(session_id, alice)
    assert bindings.belongs_to("1", alice)
    assert bindings.bind("3", alice)
    assert not bindings.belongs_to("2", alice)
    assert bindings.belongs_to("1", alice)
    assert len(bindings) == 2


def test_a_binding_never_changes_hands() -> None:
    bindings, alice, bob = SessionBindings(), Holder("alice", "c"), Holder("bob", "c")
    assert bindings.bind("1", alice)
    assert not bindings.bind("1", bob)
    assert not bindings.bind("1", Holder("alice", "d"))
    assert bindings.belongs_to("1", alice)
    bindings.unbind("1")
    bindings.unbind("1")
    assert bindings.bind("1", bob)


@pytest.mark.parametrize(
    ("target", "ids"),
    [
        ("/a", ()), ("/a?b=c", ()), ("/a?x=session_id", ()), ("/session_id=1", ()),
        ("/a?session_id=1", ("1",)), ("/a?SESSIONID=1", ("1",)), ("/a?session-id=1", ("1",)),
        ("/a?%53ession%49d=1", ("1",)), ("/a?b;session_id=1", ("1",)), ("/a?b=?session_id=1", ()),
        ("/a??session_id=1", ()), ("/a?mysession_id=1", ()),
    ],
)  # fmt: skip
def test_ids_in_queries_are_found_as_frameworks_find_them(
    target: str, ids: tuple[str, ...]
) -> None:
    assert ids_of_request(Headers(), target) == ids


@pytest.mark.parametrize(
    ("event", "session_id"),
    [
        (b"event: endpoint\ndata: /m?session_id=1\n\n", "1"),
        (b"event: endpoint\r\ndata: /m?sessionId=1\r\n\r\n", "1"),
        (b"event:endpoint\rdata:/m?sessionId=1\r\r", "1"),
        (b"data: /m?sessionId=1#x\nevent: endpoint\n\n", "1"),
        (b"\xef\xbb\xbfevent: endpoint\ndata: /m?sessionId=1\n\n", "1"),
        (b": ping\n\n: ping\n\nid: 1\nevent: endpoint\ndata: /m?a=b&sessionId=1\n\n", "1"),
        (b"event: endpoint\ndata: /m?a=b\ndata: &sessionId=1\n\n", "1"),
        (b"event: message\ndata: /m?session_id=1\n\n", None),
        (b"data: /m?session_id=1\n\n", None),
        (b"event: endpoint\ndata: /m\n\n", None),
    ],
)
def test_the_first_event_is_read_however_it_is_cut(event: bytes, session_id: str | None) -> None:
    for size in (1, 2, 3, len(event)):
        first, found = FirstEvent(), []
        for at in range(0, len(event), size):
            if not first.done and (one := first.feed(event[at : at + size])) is not None:
                found.append(one)
        assert found == ([] if session_id is None else [session_id])
        assert first.done


def test_a_first_event_without_an_end_is_not_kept() -> None:
    first = FirstEvent()
    assert first.feed(b"data: " + b"a" * 20_000) is None
    assert first.done


def test_a_first_event_that_names_two_sessions_is_refused() -> None:
    with pytest.raises(Malformed):
        FirstEvent().feed(b"event: endpoint\ndata: /m?session_id=1&session_id=2\n\n")
