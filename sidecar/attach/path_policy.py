"""Whether a path is plainly one path. What a server could read as another is refused, never mended.

A server may decode escapes once more than it should, take a backslash for a slash, or drop what
follows a semicolon. So a path is looked at as sent and after each decoding.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SLASH: Final = re.compile("%2f", re.IGNORECASE)
_SUSPECT: Final = re.compile(r"[%;\\]|/\.")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SEMICOLON_DOT: Final = re.compile(r";[^/]*\.")
_SEGMENT_END: Final = re.compile(r"[;?#]")
_MOST_DECODINGS: Final = 4

# Characters that some servers fold into the ASCII ones (Unicode TR 36, compatibility forms).
_LOOKALIKES: Final = str.maketrans(
    {
        "\u2024": ".", "\u2025": "..", "\u2026": "...", "\ufe52": ".", "\uff0e": ".",
        "\u2044": "/", "\u2215": "/", "\u29f8": "/", "\uff0f": "/",
        "\u2216": "\\", "\u29f5": "\\", "\u29f9": "\\", "\ufe68": "\\", "\uff3c": "\\",
        "\u037e": ";", "\ufe14": ";", "\ufe54": ";", "\uff1b": ";",
    }
)  # fmt: skip


def problem_of(path: str) -> str | None:
    """Why this path, spelt as in the request line and without its query, is refused; else None.

    The text is a code from a closed set and holds nothing of the path.
    """
    if not path.startswith("/") or path.startswith("//"):
        return "not_one_absolute_path"
    if _SUSPECT.search(path) is None:
        return None
    if _ESCAPE.search(path) is not None:
        return "malformed_escape"
    try:
        for reading in _readings(path):
            if problem := _problem_in(reading):
                return problem
    except UnicodeDecodeError:
        return "bad_utf8"
    except _Nested:
        return "nested_escapes"
    return None


def slashes_decoded(path: str) -> str:
    """The path as a server has it that decodes `%2F` before it looks for segments."""
    return _SLASH.sub("/", path) if "%" in path else path


class _Nested(Exception):
    """There is an escape in an escape in an escape, and so on."""


def _readings(path: str) -> Iterator[str]:
    """The path as sent, then decoded again and again. Raises UnicodeDecodeError and _Nested."""
    for _ in range(_MOST_DECODINGS):
        yield path
        decoded = unquote_to_bytes(path).decode("utf-8")
        if decoded == path:
            return
        path = decoded
    raise _Nested


def _problem_in(reading: str) -> str | None:
    if _CONTROL.search(reading) is not None:
        return "control_character"
    if not reading.isascii():
        reading = reading.translate(_LOOKALIKES)
    if "\\" in reading:
        return "backslash"
    if any(map(_is_dot_segment, reading.split("/"))):
        return "dot_segment"
    if ";" in reading and _SEMICOLON_DOT.search(reading) is not None:
        return "semicolon_before_dot"
    return None


def _is_dot_segment(segment: str) -> bool:
    """Dots alone, also before a parameter, a decoded query, or spaces that a server may drop."""
    text = _SEGMENT_END.split(segment, maxsplit=1)[0].strip()
    return text != "" and not text.replace(" ", "").strip(".")
