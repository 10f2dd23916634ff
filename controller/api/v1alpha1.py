"""The API group of MCPAuthServer and MCPServerAuth, and how members of both are read.

The API server has checked both against their schemas. A view is still careful: an object stored
under an older schema may lack a member, and missing data denies.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

GROUP: Final = "tokenward.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
SCHEMA: Final = (
    3  # of the annotation on both CustomResourceDefinitions; raised with each new member
)
SCHEMA_ANNOTATION: Final = f"{GROUP}/schema"

PAUSED: Final = f"{GROUP}/paused"
CONFIRM_SIDECAR: Final = f"{GROUP}/confirm-old-sidecar"
ADOPT: Final = f"{GROUP}/adopt"
RELEASE_RESOURCE: Final = f"{GROUP}/release-resource"

_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})(h|m|s)", re.ASCII)
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1}
DEFAULT_RELEASE: Final = ("HandOut", "Attach")


def duration(text: object, default: timedelta) -> timedelta:
    """A duration of the schema, such as 24h."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]]) if match else default


def strings(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
