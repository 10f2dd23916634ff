"""The corpus of the gateway: its own shapes, and those of the server with a JWT in them."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.chassis.http1.shapes import SHAPES as OF_THE_SERVER
from tests.chassis.http1.shapes import Shape as ServerShape
from tests.sidecar.harness import JWT

REFUSED_JWT = "eyJhbGciOiJFUzI1NiJ9.refused.c2lnbmF0dXJl"
_AUTH = f"Authorization: Bearer {JWT}\r\n"
_BAD = f"Authorization: Bearer {REFUSED_JWT}\r\n"

# The gateway's limits are larger than those of the server's corpus. It has no use for a target that
# is no path, and reads no body of a request without a JWT.
_OTHER_VERDICTS = {
    "65 fields": [200],
    "65 fields of one name": [200],
    "a head of 17 KiB": [200],
    "a target of 9 KiB": [200],
    "all of OPTIONS": [400],
    "a malformed chunk ends a pipeline": [200, 401],
}


class Shape(NamedTuple):
    name: str
    sent: bytes
    statuses: list[int]
    forwarded: int
    head: bool


def _of_the_gateway(entry: dict[str, Any]) -> Shape:
    text = entry["send"].replace("<auth>", _AUTH).replace("<bad>", _BAD).replace("<jwt>", JWT)
    statuses = entry["statuses"]
    forwarded = entry.get("forwarded", sum(status < 300 for status in statuses))
    return Shape(
        entry["name"], text.encode("latin-1"), statuses, forwarded, entry.get("head", False)
    )


def _of_the_server(shape: ServerShape) -> Shape:
    """With a JWT in the first request alone: what is pipelined or smuggled behind it has none."""
    line, end, rest = shape.sent.partition(b"\r\n")
    sent = line + end + (_AUTH.encode() if line and end else b"") + rest
    first, *others = _OTHER_VERDICTS.get(shape.name, shape.statuses)
    statuses = [first, *(401 if status == 200 else status for status in others)]
    return Shape(f"server: {shape.name}", sent, statuses, int(first == 200), shape.head)


_TEXT = (Path(__file__).parent / "corpus.yaml").read_text("utf-8")
OWN = [_of_the_gateway(entry) for entry in yaml.load(_TEXT, yaml.CSafeLoader)]
SHAPES = [*OWN, *(_of_the_server(shape) for shape in OF_THE_SERVER)]
