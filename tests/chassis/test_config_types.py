"""The names of a configuration's members are those that pydantic would make of ours."""

import pytest
from pydantic.alias_generators import to_camel

from authserver.config import settings  # noqa: F401 - defines every model of the authserver
from chassis.config_types import Model


def _below(kind: type[Model]) -> set[type[Model]]:
    return {kind}.union(*(_below(each) for each in kind.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(_below(Model), key=lambda each: each.__qualname__))
def test_every_member_is_named_as_pydantic_would(kind: type[Model]) -> None:
    written = {
        name: field.alias for name, field in kind.model_fields.items() if field.alias_priority == 1
    }
    assert written == {name: to_camel(name) for name in written}
