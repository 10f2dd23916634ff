"""The kinds of values that more than one process's configuration holds.

Not for the sidecar: pydantic would double what it weighs.
"""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from chassis.spiffe_id import is_trust_domain

_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+", re.ASCII)


def _camel(name: str) -> str:
    """pydantic's `to_camel` for names like ours; that one was a fifth of what a model costs."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


class Model(BaseModel):
    """Frozen, camelCase in the file, and unknown members are faults."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=_camel,
        hide_input_in_errors=True,
        defer_build=True,
    )


def matches_pattern(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"must be {what}")
        return text

    return AfterValidator(check)


def _trust_domain(text: str) -> str:
    if not is_trust_domain(text):
        raise ValueError("must be a trust domain such as example.org, without spiffe://")
    return text


Port = Annotated[int, Field(ge=0, le=65535)]
Scope = Annotated[str, matches_pattern(_SCOPE, "a scope token (RFC 6749 section 3.3)")]
TrustDomain = Annotated[str, AfterValidator(_trust_domain)]
