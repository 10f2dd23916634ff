"""Every shape of the corpus is served or refused as the corpus says, wherever it is cut."""

import pytest

from tests.chassis.http1.harness import (
    Failures,
    Wire,
    echo,
    echo_at_once,
    exchange,
    listening,
    make,
    statuses,
)
from tests.chassis.http1.shapes import NAMES, SHAPES, Shape

HANDLERS = {"sync": echo_at_once, "async": echo}


def test_the_corpus_is_not_small() -> None:
    assert len(SHAPES) >= 240
    assert len(set(NAMES)) == len(NAMES)
    assert sum(shape.refused for shape in SHAPES) >= 180


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
async def test_a_shape_is_answered_as_the_corpus_says(shape: Shape) -> None:
    for handler in HANDLERS.values():
        failed = Failures()
        async with listening(make(handler, failed=failed)) as port:
            answer = await exchange(port, shape.sent)
        if shape.head:
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n")
        else:
            assert statuses(answer) == shape.statuses
        assert [failure.status for failure in failed.all] == [
            status for status in shape.statuses if status >= 400
        ]


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
async def test_a_shape_is_answered_alike_wherever_it_is_cut(shape: Shape) -> None:
    server = make()
    whole = Wire(server)
    expected = await whole.send(shape.sent)
    assert expected
    for cut in _cuts(len(shape.sent)):
        wire = Wire(server)
        assert _final(await wire.send(shape.sent[:cut], shape.sent[cut:])) == expected, cut
        wire.end()
    if len(shape.sent) < 500:
        wire = Wire(server)
        pieces = [shape.sent[at : at + 1] for at in range(len(shape.sent))]
        assert _final(await wire.send(*pieces)) == expected
        wire.end()
    whole.end()


def _final(answer: bytes) -> bytes:
    """Whether there is an invitation depends on where the cut is."""
    return answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")


def _cuts(size: int) -> list[int]:
    """Every border; of long shapes, those near their ends and some between."""
    if size < 500:
        return list(range(1, size))
    return [*range(1, 100), *range(100, size - 100, size // 50), *range(size - 100, size)]


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.refused], ids=lambda s: s.name)
async def test_what_is_refused_ends_its_connection(shape: Shape) -> None:
    wire = Wire(make())
    answer = await wire.send(shape.sent, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(answer) == shape.statuses
    last = answer[answer.rindex(b"HTTP/1.1 ") :]
    assert b"\r\nConnection: close\r\n" in last
    assert wire.transport.sent_end or wire.transport.closed
    wire.end()
