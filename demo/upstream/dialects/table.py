"""Every provider's behaviour. A name is the provider's, and what is set up where that matters."""

from collections.abc import Mapping
from typing import Final

from demo.upstream.dialects.behaviour import Behaviour
from demo.upstream.dialects.identity import IDENTITY
from demo.upstream.dialects.office import OFFICE
from demo.upstream.dialects.team_tools import TEAM_TOOLS

BEHAVIOURS: Final[Mapping[str, Behaviour]] = {**TEAM_TOOLS, **OFFICE, **IDENTITY}
