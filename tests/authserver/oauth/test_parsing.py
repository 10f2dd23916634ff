"""What strangers send is read strictly, and what cannot be read raises Malformed only."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authserver.oauth.parsing import (
    MAX_FIELDS,
    Malformed,
    form_fields,
    json_object,
    only_cookie,
    query_fields,
    short_text,
    whole_number,
)


def test_a_form_is_read_with_empty_values_counted_as_absent() -> None:
    assert query_fields("a=1&b=&c=%20%2B+&d=%C3%BC") == {"a": "1", "c": " + ", "d": "ü"}
    assert query_fields("&a=1&&&b=2&") == {"a": "1", "b": "2"}
    assert form_fields(b"") == {}
    assert form_fields(b"a=b:c&d=1") == {"a": "b:c", "d": "1"}
    most = "&".join(f"f{n}=1" for n in range(MAX_FIELDS))
    assert len(form_fields(most.encode())) == MAX_FIELDS


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a=1",
        b"a=1&a=2",
        b"a=&a=1",
        b"a=1&%61=2",
        b"a=%",
        b"a=%4",
        b"a=%zz",
        b"a=%00",
        b"a=\0",
        b"\0=a",
        b"%00=a",
        b"a=%ff",
        b"a=%ed%a0%80",
        "a=ü".encode(),
        b"a=\xff",
        "&".join(f"f{n}=1" for n in range(MAX_FIELDS + 1)).encode(),
    ],
)
def test_a_form_that_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        form_fields(body)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"{",
        b"{'a': 1}",
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1} {"a": 1}',
        b"\xff{}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"a": ' + b"1" * 5000 + b"}",
        b'{"a": ' * 65 + b"1" + b"}" * 65,
        b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
    ],
    ids=lambda text: text[:16].decode("latin-1"),
)
def test_json_that_could_be_read_in_two_ways_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        json_object(text)


@pytest.mark.parametrize("as_sent", [str, str.encode])
def test_json_may_be_broad_and_nested_a_little(as_sent: Any) -> None:
    assert json_object(as_sent('{"a": ' * 64 + "1" + "}" * 64))
    assert json_object(as_sent('{"a": [' + ", ".join(['{"b": [1, "{[{["]}'] * 100) + "]}"))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_is_sent_there_is_no_other_failure_than_malformed(body: bytes) -> None:
    for read in (json_object, form_fields, lambda body: query_fields(body.decode("latin-1"))):
        with suppress(Malformed):
            read(body)


@settings(deadline=None)
@given(st.binary(max_size=100))
@example(b"state=\xff")
def test_what_is_read_of_a_raw_query_can_be_encoded_again(query: bytes) -> None:
    with suppress(Malformed):
        fields = query_fields(query.decode("utf-8", "surrogateescape"))  # as aiohttp does
        "".join((*fields, *fields.values())).encode()


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (["tw=1"], "1"),
        (["a=2; tw=1; b=3"], "1"),
        (["a=2", "tw=1"], "1"),
        (["tw=a=b"], "a=b"),
        ([], None),
        (["tw=1; tw=1"], None),
        (["tw=1", "tw=2"], None),
        (["tw"], None),
        (["TW=1"], None),
        (["xtw=1"], None),
        (["tw =1"], None),
        (["\u2000tw=1"], None),
        (["\xa0tw=1"], None),
        (["\ttw=1"], None),
        (["tw=ü"], None),
        (["tw=\udcff"], None),
    ],
)
def test_a_cookie_counts_only_by_its_exact_name_and_only_once(
    headers: list[str], value: str | None
) -> None:
    assert only_cookie(headers, "tw") == value


def test_a_cookie_with_a_smuggled_twin_keeps_its_value() -> None:
    assert only_cookie(["\u2000tw=evil; tw=good; \xa0tw=evil"], "tw") == "good"


@pytest.mark.parametrize("value", [None, "1", 1.0, True, -1, 2**53, [1]])
def test_a_number_claim_is_a_sane_integer(value: Any) -> None:
    assert whole_number({"exp": 0}, "exp") == 0
    with pytest.raises(Malformed):
        whole_number({"exp": value}, "exp")


@pytest.mark.parametrize("value", [None, "", 1, ["a"], "a\n", "a" * 256])
def test_a_text_claim_is_short_and_printable(value: Any) -> None:
    assert short_text({"sub": "a" * 255}, "sub") == "a" * 255
    with pytest.raises(Malformed):
        short_text({"sub": value}, "sub")
