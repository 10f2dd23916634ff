"""What a stored exchanged token costs at the internal listener, beside a plain connection's.

`python -m tests.bench.exchanged`: by turns, in one process. First over one warm mTLS connection,
whose caller costs far more than the answer; then the steps from the form to the token alone.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from authserver.internal.exchange_request import ACCESS_TOKEN_TYPE, GRANT_TYPE, parse
from chassis.spiffe_id import Workload
from tests.support.exchanging import Exchanging, exchanging
from tests.support.workloads import Line, line

_ROUNDS: Final = 30
_CALLS: Final = 100
_WISHES: Final = {
    "a plain connection": {"audience": "acme"},
    "an exchanged token": {"audience": "orders"},
    "a narrowed one": {"audience": "orders", "target_audience": "orders", "scope": "orders.read"},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> None:
    async with exchanging(folder, lifetime=100_000) as r, line(r.world) as open_line:
        jwt = r.user.access_token

        async def whole(wish: dict[str, str]) -> None:
            await _over(open_line, jwt, wish)

        await _print("exchange of a known JWT for", whole)
        await _print("the steps alone, for", _steps_of(r))


async def _over(open_line: Line, jwt: str, wish: dict[str, str]) -> None:
    answer = await open_line.exchange(jwt, **wish)
    assert answer.status == 200, answer.text


def _steps_of(r: Exchanging) -> Callable[[dict[str, str]], Awaitable[None]]:
    """From the form's fields to the token: everything in which the three can differ."""
    internal, caller = r.world.server.internal(), Workload("mcp-servers", "notes")
    subject_tokens, exchange = internal._subject_tokens, internal._exchange
    usual = {
        "grant_type": GRANT_TYPE,
        "subject_token": r.user.access_token,
        "subject_token_type": ACCESS_TOKEN_TYPE,
    }

    async def steps(wish: dict[str, str]) -> None:
        request = parse(usual | wish)
        claims = subject_tokens.verify(caller, request.unverified_jwt)
        target = await exchange.authorize(caller, claims, request)
        await exchange.release(target, claims, request)

    return steps


async def _print(title: str, call: Callable[[dict[str, str]], Awaitable[None]]) -> None:
    taken: dict[str, list[float]] = {name: [] for name in _WISHES}
    for _ in range(_ROUNDS):
        for name, wish in _WISHES.items():
            taken[name].append(await _round(call, wish))
    plain = statistics.median(taken["a plain connection"])
    print(f"| {title} | us | times a plain connection's |")
    print("|---|---:|---:|")
    for name, each in taken.items():
        median = statistics.median(each)
        print(f"| {name} | {median * 1e6:.0f} | {median / plain:.2f} |")


async def _round(call: Callable[[dict[str, str]], Awaitable[None]], wish: dict[str, str]) -> float:
    """Seconds of CPU of this process for one call."""
    begun = time.process_time()
    for _ in range(_CALLS):
        await call(wish)
    return (time.process_time() - begun) / _CALLS


if __name__ == "__main__":
    main()
