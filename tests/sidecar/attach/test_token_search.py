"""An answer that holds the token never reaches the code."""

import asyncio
import contextlib
import json
from itertools import pairwise
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from sidecar.attach.token_search import TokenFound, TokenSearch
from tests.sidecar.attach.harness import TOKEN, Attached, Called
from tests.sidecar.harness import JWT

SPELLINGS = {
    "as it is": TOKEN,
    "in JSON": TOKEN.replace("/", "\\/"),
    "in a URL": quote(TOKEN, safe=""),
}


def passed(pieces: list[bytes], token: str = TOKEN) -> tuple[bytes, bool]:
    """What goes through, and whether the token was found."""
    search, through = TokenSearch(token).stream(), b""
    try:
        for piece in pieces:
            through += search.feed(piece)
        return through + search.end(), False
    except TokenFound:
        return through, True


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_the_token_is_found_wherever_it_is_cut(spelling: str) -> None:
    text = f"before {spelling} behind".encode()
    for first in range(len(text) + 1):
        for second in range(first, min(len(text), first + 12) + 1):
            through, found = passed([text[:first], text[first:second], text[second:]])
            assert found
            assert b"before ".startswith(through)
    assert passed([text[at : at + 1] for at in range(len(text))]) == (b"before ", True)


_ALIKE = st.lists(st.sampled_from([b"a", b"b", b"ab", b"aab", b"x"]), max_size=12)


@given(_ALIKE)
def test_nothing_else_is_lost_or_taken_for_it(pieces: list[bytes]) -> None:
    """Tokens and texts of two letters, so that beginnings overlap."""
    for token in ("aabaab", "abab", "aaa", "b"):
        through, found = passed(pieces, token)
        whole = b"".join(pieces)
        assert found is (token.encode() in whole)
        assert token.encode() not in through
        if not found:
            assert through == whole


@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.integers(0, 99), max_size=5))
def test_arbitrary_bytes_pass_unchanged(pieces: list[bytes], cuts: list[int]) -> None:
    text = b"".join(pieces)
    borders = [0, *sorted(at % (len(text) + 1) for at in cuts), len(text)]
    assert passed([text[begin:end] for begin, end in pairwise(borders)]) == (text, False)


def test_only_a_beginning_of_the_token_is_held_back() -> None:
    search = TokenSearch("secret").stream()
    assert search.feed(b"data: 1\n\n") == b"data: 1\n\n"
    assert search.feed(b"data: sec") == b"data: "
    assert search.feed(b"ond\n\n") == b"second\n\n"
    assert "secret" not in repr(search) + repr(TokenSearch("secret"))


# At the door.


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 500])
async def test_an_answer_that_echoes_the_token_is_502(
    a: Attached, spelling: str, status: int
) -> None:
    async def echo(_: web.BaseRequest, called: Called) -> web.StreamResponse:
        return web.Response(status=status, body=f"you sent {spelling}".encode())

    a.api.handle = echo
    answer = await a.call()
    assert (answer.status, answer.error) == (502, "token_in_response")
    assert spelling.encode() not in answer.raw
    assert a.counted("token_in_response") == 1
    assert a.r.metric("tokenward_sidecar_token_in_response_total", answer="refused") == 1


@pytest.mark.parametrize("name", ["X-Echo", "Location", "Link", "Set-Cookie", "WWW-Authenticate"])
async def test_a_field_that_holds_the_token_is_502(a: Attached, name: str) -> None:
    async def echo(_: web.BaseRequest, called: Called) -> web.StreamResponse:
        return web.Response(headers={name: f"https://x.test/?t={quote(TOKEN, safe='')}"})

    a.api.handle = echo
    for method in ("GET", "HEAD"):
        answer = await a.call("/repos", method)
        assert answer.status == 502
        assert answer.headers["X-Tokenward-Error"] == "token_in_response"
        assert TOKEN not in str(answer.headers)


async def test_a_streamed_answer_is_cut_before_the_token(a: Attached) -> None:
    go_on = asyncio.Queue[bytes]()

    async def events(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while event := await go_on.get():
            await response.write(event)
        return response

    a.api.handle = events
    headers = {"Authorization": f"Bearer {JWT}"}
    seen = b""
    async with a.r.http.get(f"{a.url}/repos", headers=headers) as response:
        go_on.put_nowait(b"data: fine\n\n")
        seen += await response.content.readany()
        go_on.put_nowait(f"data: {TOKEN[:9]}".encode())
        go_on.put_nowait(f"{TOKEN[9:]}\n\n".encode())
        with contextlib.suppress(aiohttp.ClientPayloadError):
            while piece := await response.content.readany():
                seen += piece
        assert isinstance(response.content.exception(), aiohttp.ClientPayloadError)
    assert seen.startswith(b"data: fine\n\n")
    assert TOKEN[:9].encode() not in seen
    assert a.r.metric("tokenward_sidecar_token_in_response_total", answer="cut_off") == 1
    go_on.put_nowait(b"")


async def test_a_token_that_was_shown_is_renewed(a: Attached) -> None:
    async def echo(_: web.BaseRequest, called: Called) -> web.StreamResponse:
        return web.json_response({"echo": called.values("authorization")[0][7:]})

    a.api.handle = echo
    a.api.tokens.add("renewed")
    a.r.authserver.then(a.release(), a.release("renewed"))
    await a.call()
    await a.r.until(lambda: len(a.r.authserver.received) == 2)
    assert "rejected_token_sha256" in a.r.authserver.received[1].form
    await a.r.until(lambda: a.r.metric("tokenward_sidecar_cache_entries") == 1)
    assert (await a.r.ask({"upstream": "github"})).json["access_token"] == "renewed"
    # And not at each further answer of that kind.
    for _ in range(3):
        assert (await a.call()).status == 502
    assert len(a.r.authserver.received) == 2


async def test_the_operator_may_turn_the_search_off(a: Attached) -> None:
    async def echo(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.Response(body=json.dumps({"t": TOKEN}).encode())

    a.api.handle = echo
    a.always(apis=[a.describe(search_answers=False)])
    answer = await a.call()
    assert (answer.status, TOKEN.encode() in answer.raw) == (200, True)
