"""JSON objects have one reading, on every version of Python."""

import pytest

from chassis.strict_json import MAX_DEPTH, InvalidJson, parse_object


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"[]",
        b"1",
        b"",
        b'{"a": 1}{',
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_has_two_readings_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_object(text)


def test_an_object_within_the_bounds_is_read() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a": [1, null, {"b": "\\u00e9"}]}') == {
        "a": [1, None, {"b": "\u00e9"}]
    }
    assert parse_object('{"a": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)
