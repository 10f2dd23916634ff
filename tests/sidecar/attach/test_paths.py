"""The path policy: the corpus, and properties that hold for every path."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.apis import Api
from sidecar.attach.destination import Destination, find_destination
from sidecar.attach.path_policy import problem_of
from tests.sidecar.attach.paths import APIS, DRIVE, REST, SHAPES, Shape


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.path for shape in SHAPES])
def test_a_path_is_sent_as_it_is_or_refused(shape: Shape) -> None:
    found = find_destination(APIS, "GET", shape.path)
    if isinstance(found, Destination):
        assert found.target_path == shape.sent
    else:
        assert found.error == "destination_not_allowed"
        assert found.reason.removeprefix("path_") == (shape.refused or "").removeprefix("path_")


def test_the_corpus_is_one() -> None:
    assert len(SHAPES) == len({shape.path for shape in SHAPES}) >= 100
    assert sum(shape.refused is not None for shape in SHAPES) >= 60
    assert all((shape.sent is None) is (shape.refused is not None) for shape in SHAPES)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_a_method_is_allowed_by_name_only(method: str) -> None:
    found = find_destination(APIS, method, "/repos")
    assert not isinstance(found, Destination)
    assert found.reason == "method"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_some_methods_are_never_sent_whatever_is_allowed(method: str) -> None:
    apis = (REST._replace(methods=(method,)),)
    assert not isinstance(find_destination(apis, method, "/repos"), Destination)


def test_a_prefix_has_to_match_as_sent_and_with_slashes_decoded() -> None:
    """Amendment 21: nobody knows which of the two readings the API has."""
    for prefix, path in (("/a%2Fb", "/a%2Fb/c"), ("/a/b", "/a%2Fb/c")):
        found = find_destination((REST._replace(path_prefixes=(prefix,)),), "GET", path)
        assert not isinstance(found, Destination)
        assert found.reason == "path_outside"
    both = REST._replace(path_prefixes=("/a%2Fb", "/a/b"))
    assert isinstance(find_destination((both,), "GET", "/a%2Fb/c"), Destination)


def test_without_a_default_every_api_is_named() -> None:
    apis = (REST._replace(default=False), DRIVE)
    found = find_destination(apis, "GET", "/rest/repos/octo")
    assert isinstance(found, Destination)
    assert (found.api.name, found.target_path) == ("rest", "/repos/octo")
    assert not isinstance(find_destination(apis, "GET", "/repos/octo"), Destination)
    assert not isinstance(find_destination((), "GET", "/repos"), Destination)


_PARTS = st.sampled_from(
    ["repos", "user", "projects", "drive", "files", "keys", "octo", "..", ".", "%2e", "%2E",
     "%252e", "%2F", "%2f", "%252f", "/", "//", "\\", "%5c", ";", "%3b", "a", "é", "%C3%A9",
     "%c0%ae", "%00", "%", "%EF%BC%8E", "%20", "~", ":", "@", "?", "#"]
)  # fmt: skip
_PATHS = st.lists(_PARTS, max_size=12).map("".join).map(lambda text: f"/{text}")
_WHOLE_HOST = REST._replace(path_prefixes=("/",), excluded_paths=())


def _readings(path: str) -> set[str]:
    """What any server may make of a path; written down apart from the code."""
    readings = {path}
    for _ in range(3):
        readings |= {unquote(reading) for reading in readings}
        readings |= {re.sub("%2f", "/", reading, flags=re.I) for reading in readings}
    readings |= {reading.replace("\\", "/") for reading in readings}
    return readings | {re.sub(r";[^/]*", "", reading) for reading in readings}


def _walk(path: str) -> list[str]:
    """The segments that are left when dot segments are removed (RFC 3986 section 5.2.4)."""
    left = list[str]()
    for segment in path.split("/")[1:]:
        if segment == "..":
            left = left[:-1]
        elif segment != ".":
            left.append(segment)
    return left


@settings(max_examples=1500, deadline=None)
@given(_PATHS)
@example("/repos/%25252e%25252e/admin")
def test_no_reading_of_what_is_sent_leaves_the_allowed_prefix(path: str) -> None:
    found = find_destination((REST,), "GET", path)
    if not isinstance(found, Destination):
        return
    assert found.target_path == path
    for reading in _readings(path):
        walked = _walk(reading)
        assert walked[0] in ("repos", "user", "projects"), reading
        assert "/".join(part for part in walked if part).lower() != "user/keys"


@settings(max_examples=1500, deadline=None)
@given(_PATHS)
def test_a_path_that_passes_is_one_path_in_every_reading(path: str) -> None:
    """Also where the whole host is allowed: policies in front of the API read paths as well."""
    if problem_of(path) is not None:
        assert not isinstance(find_destination((_WHOLE_HOST,), "GET", path), Destination)
        return
    for reading in _readings(path):
        assert not {".", ".."} & set(reading.split("/")), reading
        assert "\\" not in reading
        assert "\x00" not in reading


@given(st.text(max_size=40))
def test_any_text_has_a_verdict(text: str) -> None:
    found = find_destination(APIS, "GET", text)
    assert isinstance(found, Destination) or found.error == "destination_not_allowed"


_SEGMENTS = st.from_regex(r"[a-z0-9_~-][A-Za-z0-9_~!$&'()*+,=:@.-]{0,12}", fullmatch=True)


@given(st.lists(_SEGMENTS, max_size=6))
def test_ordinary_paths_pass_byte_for_byte(segments: list[str]) -> None:
    """A policy that refused everything would pass the other tests."""
    path = "/projects/" + "/".join(segments)
    found = find_destination((REST,), "GET", path)
    assert isinstance(found, Destination)
    assert found.target_path == path


def test_a_destination_is_made_of_the_base_url() -> None:
    api: Api = DRIVE._replace(base_url="https://www.test/a/b")
    found = find_destination((api,), "GET", "/drive/files/1")
    assert isinstance(found, Destination)
    assert found.target_path == "/a/b/files/1"
