"""Every provider's behaviour. A name is the provider's, and what is set up where that matters."""

from collections.abc import Mapping
from typing import Final

from demo.upstream.dialects.applications import APPLICATIONS
from demo.upstream.dialects.behaviour import Behaviour
from demo.upstream.dialects.identity import IDENTITY

BEHAVIOURS: Final[Mapping[str, Behaviour]] = {**APPLICATIONS, **IDENTITY}
