"""Links of answers: those of the upstream become local, everything else stays as it is."""

import json
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.attach.links import JsonLinks, Links
from tests.sidecar.attach.harness import Attached, Called
from tests.sidecar.attach.paths import DRIVE, REST

CALENDAR = DRIVE._replace(name="calendar", path_prefixes=("/calendars",))
APIS = (REST, DRIVE, CALENDAR)
ROOT = "http://127.0.0.1:15500/upstream/github"
LINKS = Links("http://127.0.0.1:15500", "github", APIS)

LOCAL = {
    "https://api.test": "",
    "https://api.test/": "/",
    "https://api.test/repos?page=2": "/repos?page=2",
    "https://api.test?page=2": "?page=2",
    "https://api.test:443/repos": "/repos",
    "https://API.test/repos/A%2Fb#c": "/repos/A%2Fb#c",
    "HTTPS://api.test/repos": "/repos",
    "http://api.test/repos": "/repos",
    "https://api.test/admin": "/admin",
    "https://api.test/repos/x{/sha}": "/repos/x{/sha}",
    "https://www.test:8443/v3/files/1": "/drive/files/1",
    "https://www.test:8443/v3/calendars/1": "/calendar/calendars/1",
    "https://www.test:8443/v3/other": "/drive/other",
}
NOT_LOCAL = [
    "https://api.test.evil.test/repos", "https://evil.test/https://api.test/repos",
    "https://api.test@evil.test/repos", "https://user@api.test/repos", "https://api.test:8443/repos",
    "http://api.test:443/repos", "https://www.test/v3/files", "https://www.test:8443/v33/files",
    "https://www.test:8443/V3/files", "https://www.test:8443/", "ftp://api.test/repos", "/repos",
    "repos", "", "https:", "https://", "https:/api.test/repos", "https:\\\\api.test\\repos",
    "https://api.test\\@evil.test/repos", "javascript:alert(1)",
]  # fmt: skip


@pytest.mark.parametrize("link", LOCAL)
def test_a_link_under_a_base_url_becomes_local(link: str) -> None:
    assert LINKS.local(link) == ROOT + LOCAL[link]


@pytest.mark.parametrize("link", NOT_LOCAL)
def test_any_other_link_stays(link: str) -> None:
    assert LINKS.local(link) is None


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/repos/2", f"{ROOT}/repos/2"), ("//api.test/repos", f"{ROOT}/repos"),
        ("//evil.test/repos", "//evil.test/repos"), ("?page=2", "?page=2"), ("2", "2"),
        ("https://api.test/repos/2", f"{ROOT}/repos/2"), ("https://evil.test/", "https://evil.test/"),
    ],
)  # fmt: skip
def test_a_location_is_meant_below_the_api(target: str, location: str) -> None:
    assert LINKS.location(target, REST) == location
    assert LINKS.location("/v3/files/2", DRIVE) == f"{ROOT}/drive/files/2"
    assert LINKS.location("/login", DRIVE) == "/login"


def test_link_fields_keep_everything_but_their_targets() -> None:
    value = (
        '<https://api.test/repos?page=2>; rel="next", <https://evil.test/x>; rel="a"; '
        'title="<https://api.test/repos>", </repos?page=9>; rel=last'
    )
    assert LINKS.link_field(value, REST) == (
        f'<{ROOT}/repos?page=2>; rel="next", <https://evil.test/x>; rel="a"; '
        f'title="<https://api.test/repos>", <{ROOT}/repos?page=9>; rel=last'
    )


def rewriter() -> JsonLinks:
    return JsonLinks(LINKS, ("next", "@odata.nextLink", "url"), [api.base_url for api in APIS])


def cut(text: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(borders)]


def fed(pieces: list[bytes]) -> bytes:
    rewriting = rewriter().stream()
    return b"".join([*(rewriting.feed(piece) for piece in pieces), rewriting.end()])


TEXT = (
    b'{"next" : "https://api.test/repos?page=2\\u0026a=b", "other": "https://api.test/repos",\n'
    b' "@odata.nextLink":"https:\\/\\/api.test\\/repos\\/3", "n": 1.10, "b": 12345678901234567890,'
    b' "text": "\\"url\\": \\"https://api.test/repos\\"", "url": ["https://api.test/x"],'
    b' "deep": [{"url":"https://www.test:8443/v3/files/1"}, {"url":"https://evil.test/x"},'
    b' {"url":null}, {"url":"\xc3\xa9"}, {"url":"https://api.testing/x"}]}'
)
REWRITTEN = (
    b'{"next" : "' + ROOT.encode() + b'/repos?page=2\\u0026a=b", "other": "https://api.test/repos",\n'
    b' "@odata.nextLink":"' + ROOT.encode().replace(b"/", b"\\/") + b'\\/repos\\/3", "n": 1.10,'
    b' "b": 12345678901234567890,'
    b' "text": "\\"url\\": \\"https://api.test/repos\\"", "url": ["https://api.test/x"],'
    b' "deep": [{"url":"' + ROOT.encode() + b'/drive/files/1"}, {"url":"https://evil.test/x"},'
    b' {"url":null}, {"url":"\xc3\xa9"}, {"url":"https://api.testing/x"}]}'
)  # fmt: skip


def test_only_named_members_of_a_json_text_change() -> None:
    assert rewriter().rewritten(TEXT) == REWRITTEN
    assert json.loads(REWRITTEN)["b"] == 12345678901234567890


def test_a_text_is_rewritten_alike_wherever_it_is_cut() -> None:
    for at in range(len(TEXT)):
        assert fed([TEXT[:at], TEXT[at:]]) == REWRITTEN, at
    assert fed([TEXT[at : at + 1] for at in range(len(TEXT))]) == REWRITTEN


_LINK = st.sampled_from([*LOCAL, *NOT_LOCAL, "x", 'a"b', "a\\b"])
_VALUES = st.recursive(
    st.one_of(_LINK, st.text(max_size=8), st.integers(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["next", "url", "a", 'n"x']), inner, max_size=4),
    ),
    max_leaves=20,
)


def _expected(value: object, member: str = "") -> object:
    if isinstance(value, dict):
        return {name: _expected(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_expected(inner) for inner in value]
    # A link in capitals is not looked for in bodies: APIs write their own address one way.
    known = isinstance(value, str) and value.startswith(
        ("https://api.test", "http://api.test", "https://www.test:8443/v3")
    )
    if known and member in ("next", "url") and ":443" not in str(value):
        return LINKS.local(str(value)) or value
    return value


@settings(max_examples=300, deadline=None)
@example(value={"next": "https://api.test\\@evil.test/repos"}, places=[], indented=False)
@example(value={"next": "https://api.test"}, places=[27], indented=False)
@given(_VALUES, st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_a_rewritten_text_means_the_same_but_for_its_links(
    value: object, places: list[int], indented: bool
) -> None:
    text = json.dumps(value, indent=2 if indented else None).encode()
    assert json.loads(fed(cut(text, places))) == _expected(value)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_bytes_without_links_pass_unchanged(pieces: list[bytes]) -> None:
    assert fed(pieces) == b"".join(pieces)


def test_little_is_held_back() -> None:
    """A stream of objects must not wait for the next one."""
    rewriting = rewriter().stream()
    for line in (b'{"a":"b"}\n', b'{"url":"https://api.test/repos"}\n', b'[1, "x", {}]\n'):
        assert len(rewriting.feed(line)) >= len(line)


# At the door.


async def test_three_pages_and_a_redirect_stay_at_the_sidecar(a: Attached) -> None:
    async def pages(_: web.BaseRequest, called: Called) -> web.StreamResponse:
        page = int(called.target.rpartition("=")[2])
        headers = {"Link": f'<{a.api.base_url}/repos?page={page + 1}>; rel="next"'}
        return web.json_response({"url": f"{a.api.base_url}/repos/{page}"}, headers=headers)

    a.api.handle = pages
    url = f"{a.url}/repos?page=1"
    for page in (1, 2, 3):
        answer = await a.call(url=url)
        assert answer.json == {"url": f"{a.url}/repos/{page}"}
        assert int(answer.headers["Content-Length"]) == len(answer.raw)
        url = answer.headers["Link"].partition(">")[0].removeprefix("<")
    assert [called.target for called in a.api.called] == [f"/repos?page={n}" for n in (1, 2, 3)]

    async def moved(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        headers = {"Location": f"{a.api.base_url}/repos/new", "Content-Location": "/repos/old"}
        return web.Response(status=301, headers=headers)

    a.api.handle = moved
    answer = await a.call("/repos/old")
    assert (answer.status, answer.headers["Location"]) == (301, f"{a.url}/repos/new")
    assert answer.headers["Content-Location"] == f"{a.url}/repos/old"
    assert len(a.api.called) == 4


async def test_the_local_form_has_the_name_that_the_caller_used(a: Attached) -> None:
    async def moved(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"{a.api.base_url}/repos/new"})

    a.api.handle = moved
    root = f"http://localhost:{a.r.port}/upstream/github"
    answer = await a.call("/repos", headers={"Host": f"localhost:{a.r.port}"})
    assert answer.headers["Location"] == f"{root}/repos/new"


async def test_a_streamed_json_answer_is_rewritten_on_its_way(a: Attached) -> None:
    async def stream(request: web.BaseRequest, _: Called) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.x+json"})
        await response.prepare(request)
        for piece in (b'{"ur', b'l": "', f"{a.api.base_url}/rep".encode(), b'os/1"}'):
            await response.write(piece)
        return response

    a.api.handle = stream
    assert (await a.call()).raw == f'{{"url": "{a.url}/repos/1"}}'.encode()


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Range": "bytes 0-9/10"}]
)
async def test_bodies_that_are_no_whole_json_text_stay(
    a: Attached, headers: dict[str, str]
) -> None:
    body = f'{{"url": "{a.api.base_url}/repos/1"}}'.encode()

    async def plain(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": "application/json"} | headers)

    a.api.handle = plain
    assert (await a.call()).raw == body


async def test_digests_of_a_rewritten_body_are_left_out(a: Attached) -> None:
    async def digested(_: web.BaseRequest, __: Called) -> web.StreamResponse:
        return web.json_response({}, headers={"Content-Digest": "sha-256=:x:", "Digest": "x"})

    a.api.handle = digested
    answer = await a.call()
    assert not {"Content-Digest", "Digest"} & set(answer.headers)
