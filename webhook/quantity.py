"""Kubernetes resource quantities: `200m`, `48Mi`, `0.5`."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(
    r"(?P<number>[0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
    r"(?P<unit>|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})",
    re.ASCII,
)
_DECIMAL: Final = {
    "": 0,
    "n": -9,
    "u": -6,
    "m": -3,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "P": 15,
    "E": 18,
}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


class InvalidQuantity(ValueError):
    """The text is not a quantity of zero or more."""


@dataclass(frozen=True)
class Quantity:
    """An amount as it was written, and its value for comparisons."""

    text: str
    value: Decimal

    @classmethod
    def parse(cls, text: str) -> "Quantity":
        """Raises InvalidQuantity, whose text never repeats the input."""
        match = _QUANTITY.fullmatch(text)
        if match is None:
            raise InvalidQuantity("must be a Kubernetes quantity such as 200m or 48Mi")
        number, unit = Decimal(match["number"]), match["unit"]
        if unit in _BINARY:
            return cls(text, number * 1024 ** _BINARY[unit])
        exponent = _DECIMAL[unit] if unit in _DECIMAL else int(unit[1:])
        return cls(text, number.scaleb(exponent))

    def __str__(self) -> str:
        return self.text
