"""One problem, where it is, and what to do about it."""

from authserver.values import Value


class Finding(Value, frozen=True):
    """`check` is a code from a closed list; the other texts are for a person."""

    check: str
    place: str
    problem: str
    remedy: str
