"""Reads one annotation after the other, and collects a violation for each bad value."""

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from webhook.annotations import PREFIX
from webhook.reasons import Reason, Violation, quoted

_T = TypeVar("_T")


class BadValue(ValueError):
    """A value is not allowed. The text lists the allowed values."""


class Reader:
    """The annotations of one pod; `refusals` collects what is wrong with them."""

    def __init__(self, annotations: Mapping[str, str], refusals: list[Violation]) -> None:
        self.annotations, self.refusals = annotations, refusals

    def read(self, key: str, parse: Callable[[str], _T]) -> _T | None:
        """The parsed value. None where the key is absent, or its value is refused."""
        text = self.annotations.get(key)
        if text is None:
            return None
        try:
            return parse(text)
        except BadValue as bad:
            self.refuse(f"annotation {key} is {quoted(text)}; {bad}")
            return None

    def refuse(self, text: str) -> None:
        self.refusals.append(Violation(Reason.BAD_VALUE, text))


def suggestion(word: str, allowed: Collection[str]) -> str:
    """The allowed word that is closest, if one is close, and all allowed words."""
    close = difflib.get_close_matches(word[:100], allowed, n=1)
    listed = ", ".join(name.removeprefix(PREFIX) for name in allowed)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {listed}"


def choice(allowed: Collection[str]) -> Callable[[str], str]:
    """A parser of one of the allowed words."""

    def parse(text: str) -> str:
        if text not in allowed:
            # difflib finds no match for a boolean in capitals.
            raise BadValue(suggestion(text.strip().lower(), allowed))
        return text

    return parse
