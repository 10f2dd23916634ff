"""Secrets in files, as mounted volumes hold them."""

from pathlib import Path


def read_secret(file: Path) -> str:
    """The text of `file` (UTF-8) as it is now, without its final newline, which editors add.

    Raises OSError or UnicodeDecodeError.
    """
    return file.read_text("utf-8").removesuffix("\n")
