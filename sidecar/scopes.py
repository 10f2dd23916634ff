"""What a list of scopes looks like (RFC 6749 section 3.3), bounded."""

import re
from typing import Final

_SCOPE_TOKEN: Final = r"[\x21\x23-\x5b\x5d-\x7e]{1,256}"  # noqa: S105 - the RFC's name
SCOPES: Final = re.compile(rf"{_SCOPE_TOKEN}(?: {_SCOPE_TOKEN}){{0,63}}", re.ASCII)


def is_scope(text: object) -> bool:
    """Whether it is a list of scopes with spaces between."""
    return isinstance(text, str) and SCOPES.fullmatch(text) is not None
