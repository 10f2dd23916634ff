"""Frozen values: what frozen dataclasses are, without the cost of defining them.

`dataclasses` compiles six methods of each class while its module is imported, which takes a
millisecond; a hundred of them were a fifth of the authserver's start. msgspec has these methods in
C, and its values are smaller and made faster.
"""

from typing import Annotated, Any, Final, TypeVar, get_origin

import msgspec

T = TypeVar("T")

_HIDDEN: Final = "left out of the repr"

Hidden = Annotated[T, _HIDDEN]
"""The type of a field that is a secret or says who somebody is: it is left out of the repr."""


class Value(msgspec.Struct, frozen=True):
    """Compares, hashes and shows itself by its fields; `msgspec.structs.replace` makes another."""

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in shown_fields(type(self)))
        return f"{type(self).__name__}({', '.join(shown)})"


def shown_fields(kind: type[Value]) -> list[str]:
    """The fields that are in the repr of `kind`."""
    hidden = {
        name
        for each in kind.__mro__
        for name, annotation in getattr(each, "__annotations__", {}).items()
        if _is_hidden(annotation)
    }
    return [name for name in kind.__struct_fields__ if name not in hidden]


def _is_hidden(annotation: Any) -> bool:
    if isinstance(annotation, str):  # in quotes, or of a module that postpones its annotations
        return "Hidden[" in annotation
    return get_origin(annotation) is Annotated and _HIDDEN in annotation.__metadata__
