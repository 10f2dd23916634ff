"""No dataclass prints a secret: its repr is what reaches logs and tracebacks by accident."""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

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


def dataclasses_of(process: str) -> Iterator[type[Any]]:
    package = importlib.import_module(process)
    for found in pkgutil.walk_packages(package.__path__, f"{process}."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and value.__module__ == found.name
                and dataclasses.is_dataclass(value)
            ):
                yield value


def secrets_of(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    """Its fields that are texts and are named like a secret."""
    return [
        field
        for field in dataclasses.fields(kind)
        if SECRET.search(field.name) and TEXT.fullmatch(_name_of(field.type))
    ]


def _name_of(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@pytest.mark.parametrize("process", PROCESSES)
def test_no_dataclass_has_a_secret_in_its_repr(process: str) -> None:
    shown = [
        f"{kind.__module__}.{kind.__name__}.{field.name}"
        for kind in dataclasses_of(process)
        if kind.__dataclass_params__.repr
        for field in secrets_of(kind)
        if field.repr
    ]
    assert set(shown) <= NAMES


def test_the_successor_of_a_repeated_refresh_is_among_them() -> None:
    """As the mutation run found: nobody had looked at its repr."""
    from authserver.storage.refresh_tokens import Repeated

    assert [field.name for field in secrets_of(Repeated)] == ["successor"]
    assert "canary" not in repr(Repeated("canary", 0))
