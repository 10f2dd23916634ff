"""No value prints a secret: its repr is what reaches logs and tracebacks by accident."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest

from authserver.values import Hidden, Value, shown_fields

PROCESSES = ("authserver", "chassis", "controller", "sidecar", "webhook")
SECRET = re.compile(
    r"(^|_)(token|secret|successor|code|nonce|state|password|jwt|verifier|cookie|handle)(_hash)?$"
)
# Names of Secrets, not what is in them.
NAMES = {
    "controller.reconcile.keys.EncryptionKeys.secret",
    "controller.reconcile.keys.SigningKeys.secret",
}
TEXT = re.compile(r"(str|bytes)( \| None)?")


def values_of(process: str) -> Iterator[type[Any]]:
    """Its dataclasses and msgspec's values."""
    package = importlib.import_module(process)
    for found in pkgutil.walk_packages(package.__path__, f"{process}."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and value.__module__ == found.name
                and (dataclasses.is_dataclass(value) or issubclass(value, msgspec.Struct))
            ):
                yield value


def secrets_of(kind: type[Any]) -> set[str]:
    """Its fields that are texts and are named like a secret."""
    return {
        name
        for name, annotation in inspect.get_annotations(kind).items()
        if SECRET.search(name) and TEXT.fullmatch(_name_of(annotation))
    }


def shown_by(kind: type[Any]) -> set[str]:
    """The fields that are in its repr."""
    if issubclass(kind, Value):
        return set(shown_fields(kind))
    if issubclass(kind, msgspec.Struct):
        return set(kind.__struct_fields__)
    shown = dataclasses.fields(kind) if kind.__dataclass_params__.repr else ()
    return {field.name for field in shown if field.repr}


def _name_of(annotation: object) -> str:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@pytest.mark.parametrize("process", PROCESSES)
def test_no_value_has_a_secret_in_its_repr(process: str) -> None:
    shown = [
        f"{kind.__module__}.{kind.__name__}.{name}"
        for kind in values_of(process)
        for name in secrets_of(kind) & shown_by(kind)
    ]
    assert set(shown) <= NAMES


def test_the_successor_of_a_repeated_refresh_is_among_them() -> None:
    """As the mutation run found: nobody had looked at its repr."""
    from authserver.storage.refresh_tokens import Repeated

    assert secrets_of(Repeated) == {"successor"}
    assert "canary" not in repr(Repeated("canary", 0))


def test_a_hidden_field_is_compared_but_not_shown() -> None:
    class Sample(Value, frozen=True):
        name: str
        token: Hidden[str | None] = None

    assert repr(Sample("a", "canary")).endswith("Sample(name='a')")
    assert Sample("a", "canary") != Sample("a") == Sample("a")
    assert len({Sample("a", "canary"), Sample("a")}) == 2


def test_what_is_hidden_stays_so_in_quotes_and_in_a_value_made_of_another() -> None:
    class Sample(Value, frozen=True):
        name: str
        token: "Hidden[str]"

    class Larger(Sample, frozen=True):
        code: Hidden[str]
        place: int

    assert repr(Larger("a", "canary", "canary", 1)).endswith("Larger(name='a', place=1)")
