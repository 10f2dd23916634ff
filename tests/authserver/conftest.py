"""How far the stateful tests go."""

import os

import pytest

_EXAMPLES = 10


@pytest.fixture
def model_examples() -> int:
    """Sequences per state machine; `make models` asks for more."""
    return int(os.environ.get("MODEL_EXAMPLES", _EXAMPLES))  # noqa: TID251 - set by the Makefile
