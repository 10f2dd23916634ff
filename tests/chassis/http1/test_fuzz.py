"""Arbitrary bytes, arbitrary cuts, arbitrary requests: no crash, one reading, nothing lost."""

import asyncio
import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.http1.request import Request
from chassis.http1.response import Response
from tests.chassis.http1.harness import OK, Failures, Wire, make, statuses
from tests.chassis.http1.shapes import SHAPES

_TOKEN = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
_VALUE = st.from_regex(
    r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True
)
_TARGET = st.from_regex(r"/[!\"$-~]{0,40}", fullmatch=True)
_OURS = {
    "host", "content-length", "transfer-encoding", "connection", "expect", "upgrade",
    "authorization", "content-encoding", "content-location", "content-range", "content-type",
    "max-forwards", "user-agent",
}  # fmt: skip
_FIELD = st.tuples(_TOKEN, _VALUE).filter(lambda field: field[0].lower() not in _OURS)
_PIECES = [
    b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"\r", b"\n", b"\0",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"5\r\n", b" ",
    b"\t", b"hello", b":", b";", b"Connection: close\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"HTTP/1.0\r\n", b"Expect: 100-continue\r\n",
]  # fmt: skip
_CUTS = st.lists(st.integers(0, 2000), max_size=8)


def _cut(sent: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    return [sent[begin:end] for begin, end in pairwise(borders) if end > begin]


_Talk = tuple[bytes, bool, list[str], list[tuple[str, str, bytes]]]


def _alike(one: _Talk, other: _Talk) -> bool:
    """Of several reasons, the one that is found first depends on where the cut is."""
    return (one[0], one[1], len(one[2]), one[3]) == (other[0], other[1], len(other[2]), other[3])


def _talk(pieces: list[bytes]) -> _Talk:
    """The final answers, whether the connection ended, failures, and the requests served."""
    failed, served = Failures(), list[tuple[str, str, bytes]]()

    async def handle(request: Request) -> Response:
        body = await request.read(1 << 20)
        served.append((request.method, request.target, body))
        return Response(OK)

    async def main() -> tuple[bytes, bool]:
        wire = Wire(make(handle, failed=failed))
        answer = await wire.send(*pieces)
        ended = wire.transport.closed or wire.transport.sent_end
        wire.end()
        if isinstance(wire.connection._work, asyncio.Task):
            wire.connection._work.cancel()
            await asyncio.gather(wire.connection._work, return_exceptions=True)
        return answer.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), ended

    answer, ended = asyncio.run(main())
    return answer, ended, failed.reasons, served


@given(st.lists(st.sampled_from(_PIECES) | st.binary(max_size=12), max_size=14), _CUTS)
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_are_read_one_way_and_never_crash(
    pieces: list[bytes], cuts: list[int]
) -> None:
    sent = b"".join(pieces)
    whole = _talk([sent] if sent else [])
    answer, ended, reasons, _ = whole
    assert "bug" not in reasons
    assert re.search(rb"HTTP/1.1 5(?!01)", answer) is None
    if reasons and reasons != ["body_broken_off"]:
        assert ended
    assert _alike(_talk(_cut(sent, cuts)), whole)


@given(st.sampled_from([shape for shape in SHAPES if len(shape.sent) < 400]), st.data(), _CUTS)
@settings(max_examples=300, deadline=None)
def test_a_shape_with_one_byte_changed_is_read_one_way(
    shape: object, data: st.DataObject, cuts: list[int]
) -> None:
    sent = bytearray(shape.sent)  # type: ignore[attr-defined]
    sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    whole = _talk([bytes(sent)])
    assert "bug" not in whole[2]
    assert _alike(_talk(_cut(bytes(sent), cuts)), whole)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]), _TARGET,
            st.lists(_FIELD, max_size=6), st.binary(max_size=60), st.none() | st.integers(1, 40),
        ),
        min_size=1, max_size=4,
    ),
    _CUTS,
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_every_rightly_made_request_arrives_as_it_was_meant(
    requests: list[tuple[str, str, list[tuple[str, str]], bytes, int | None]], cuts: list[int]
) -> None:
    sent = b"".join(_write(*request) for request in requests)
    answer, ended, reasons, served = _talk(_cut(sent, cuts))
    assert (ended, reasons) == (False, [])
    assert statuses(answer) == [200] * len(requests)
    assert served == [(method, target, body) for method, target, _, body, _ in requests]


def _write(
    method: str, target: str, fields: list[tuple[str, str]], body: bytes, chunk: int | None
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: a", *(f"{n}: {v}" for n, v in fields)]
    if chunk is None:
        lines.append(f"Content-Length: {len(body)}")
        framed = body
    else:
        lines.append("Transfer-Encoding: chunked")
        chunks = [body[at : at + chunk] for at in range(0, len(body), chunk)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks) + b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + framed
