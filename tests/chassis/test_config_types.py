"""The names of a configuration's members are those that pydantic would make of ours."""

import pytest
from pydantic.alias_generators import to_camel

from authserver.config import settings  # noqa: F401 - defines every model of the authserver
from chassis.config_types import Model


def _below(kind: type[Model]) -> set[type[Model]]:
    return {kind}.union(*(_below(each) for each in kind.__subclasses__()))


KINDS = sorted(_below(Model), key=str)


def test_there_are_members_of_several_words() -> None:
    assert any("_" in name for kind in KINDS for name in kind.model_fields)


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_is_named_as_pydantic_would(kind: type[Model]) -> None:
    written = {
        name: field.alias for name, field in kind.model_fields.items() if field.alias_priority == 1
    }
    assert written == {name: to_camel(name) for name in written}
