"""No library may fall behind the version that closed its last known hole (A64)."""

from importlib.metadata import version

import pytest
from aiohttp import http_parser


@pytest.mark.parametrize(
    ("library", "floor"),
    [
        ("authlib", (1, 6, 11)),
        ("aiohttp", (3, 14, 1)),
        ("cryptography", (46,)),
        ("joserfc", (1, 8)),
    ],
)
def test_no_library_is_older_than_its_last_known_hole(library: str, floor: tuple[int, ...]) -> None:
    numbers = tuple(int(part) for part in version(library).split(".") if part.isdigit())
    assert numbers >= floor


def test_requests_are_parsed_by_the_strict_parser() -> None:
    """aiohttp falls back to a lenient parser in Python where its C extension is missing (A47)."""
    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy
