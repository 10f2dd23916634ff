"""The kinds of values only this configuration holds, each checked where it is read.

File paths are taken relative to the configuration file, and what they hold is checked here too,
so that a missing key is one more line in the report and not a crash later.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from chassis.config_types import matches_pattern

_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UPSTREAM_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,31})", re.ASCII)
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def _duration(value: object) -> int:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number with a unit, such as 60s, 15m, 8h or 30d")
    return int(match[1]) * _SECONDS[match[2]]


def _readable(file: Path, info: ValidationInfo) -> Path:
    resolved = Path((info.context or {}).get("folder", ".")) / file
    try:
        if not resolved.read_bytes().strip():
            raise ValueError(f"{resolved} is empty")
    except OSError as error:
        raise ValueError(f"{resolved}: {(error.strerror or 'not readable').lower()}") from None
    return resolved


def _holds_text(file: Path) -> Path:
    try:
        file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: must be text in UTF-8") from None
    return file


def _web_url(text: str) -> str:
    """An https URL, or http on loopback, in printable ASCII, without fragment or user."""
    problem = "must be a plain URL without fragment or user information"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(problem) from None
    if not text.isascii() or not text.isprintable() or "#" in text or "@" in parts.netloc:
        raise ValueError(problem)
    if not (parts.scheme == "https" and parts.hostname) and not on_loopback(text):
        raise ValueError("must start with https:// (http:// is for loopback only)")
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError("is not a network such as 10.0.0.0/8") from None
    return text


def on_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOOPBACK


@dataclass(frozen=True)  # pydantic knows these
class FolderPath:
    """A folder whose reader follows its files; the configuration's watch does not."""

    path: Path


def _folder(value: object, info: ValidationInfo) -> FolderPath:
    if isinstance(value, FolderPath):
        return value
    resolved = Path((info.context or {}).get("folder", ".")) / str(value)
    if not resolved.is_dir():
        raise ValueError(f"{resolved} is not a folder")
    return FolderPath(resolved)


Duration = Annotated[int, BeforeValidator(_duration)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
Folder = Annotated[FolderPath, BeforeValidator(_folder)]
SecretFile = Annotated[ReadableFile, AfterValidator(_holds_text)]
Network = Annotated[str, AfterValidator(_network)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
UpstreamName = Annotated[
    str, matches_pattern(_UPSTREAM_NAME, "lower-case letters, digits and hyphens, at most 32")
]
