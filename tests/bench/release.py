"""How fast is a token: from the sidecar's memory, and by an exchange over warm mTLS?"""

import tempfile
from collections.abc import Awaitable
from itertools import cycle, repeat
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from authserver.internal.exchange_request import GRANT_TYPE
from authserver.internal.listener import ROUTE
from demo.layout import HOST, plan
from tests.bench.figures import Figure, alternate
from tests.bench.load import Calls, Load, costing, drive, post
from tests.bench.memory import token_call
from tests.bench.minting import Minter
from tests.bench.open_loop import steady
from tests.bench.world import World, pin, running, until_listening

_CONNECTIONS: Final = 16
_RATE: Final = 1000.0
_UNITS: Final = ("requests/s", "p50 ms", "p99 ms", "CPU us/request")
_UNSEEN_PER_SECOND: Final = 8_000  # more than a round can use up
_JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as world:
            return [*await _hits(world), *await _exchanges(world)]


async def _hits(world: World) -> list[Figure]:
    """The same bytes from the sidecar's memory and from a handler that does nothing else.

    As fast as they are taken, and at a steady rate with latencies from the moment each was due.
    """
    port = world.server.sidecar_port
    request = token_call(port, world.jwt)
    bare = await bare_server(world, "bare-http", _A_TOKEN)
    as_fast_as_may_be = await alternate(
        "sidecar, token from memory",
        lambda c, s: drive(HOST, port, request, connections=c, seconds=s),
        lambda c, s: drive(HOST, bare, request, connections=c, seconds=s),
        connections=(1, _CONNECTIONS),
    )
    at_a_rate = await alternate(
        f"sidecar, token from memory at {_RATE:,.0f} requests/s",
        lambda c, s: steady(HOST, port, repeat(request), rate=_RATE, seconds=2 * s, lines=c),
        lambda c, s: steady(HOST, bare, repeat(request), rate=_RATE, seconds=2 * s, lines=c),
        connections=(_CONNECTIONS,),
        units=("p50 ms", "p99 ms"),
    )
    return [*as_fast_as_may_be, *at_a_rate]


async def _exchanges(world: World) -> list[Figure]:
    """One storage read each, SQLite: the same JWT again and again, and each time another."""
    port, tls = world.layout.internal_port, world.workload_tls()
    request = exchange_call(port, world.jwt)
    bare = await bare_mtls(world)
    _, authserver, *_, bare_pid = world.processes.pids

    def of_ours(calls: Calls, connections: int, seconds: float) -> Awaitable[Load]:
        load = drive(HOST, port, calls, connections=connections, seconds=seconds, tls=tls)
        return costing(authserver, load)

    def of_bare(calls: Calls, connections: int, seconds: float) -> Awaitable[Load]:
        load = drive(HOST, bare, calls, connections=connections, seconds=seconds, tls=tls)
        return costing(bare_pid, load)

    seen = await alternate(
        "authserver, exchange over warm mTLS",
        lambda c, s: of_ours(request, c, s),
        lambda c, s: of_bare(request, c, s),
        connections=(_CONNECTIONS,),
        units=_UNITS,
    )
    mint = Minter(world.jwt, world.layout.signing_key)
    calls: list[bytes] = []

    async def unseen(connections: int, seconds: float) -> Load:
        calls[:] = [exchange_call(port, mint()) for _ in range(int(seconds * _UNSEEN_PER_SECOND))]
        remaining = iter(calls)
        load = await of_ours(remaining, connections, seconds)
        if next(remaining, None) is None:
            raise ValueError("the JWTs did not last for the round")
        return load

    return [
        *seen,
        *await alternate(
            "authserver, exchange of a JWT never seen before",
            unseen,
            lambda c, s: of_bare(cycle(calls), c, s),
            connections=(_CONNECTIONS,),
            units=_UNITS,
        ),
    ]


def exchange_call(port: int, jwt: str) -> bytes:
    """An exchange as a sidecar sends it."""
    form = {"grant_type": GRANT_TYPE, "subject_token": jwt, "subject_token_type": _JWT_TYPE}
    headers = {"Host": f"{HOST}:{port}", "Content-Type": "application/x-www-form-urlencoded"}
    return post(ROUTE, urlencode(form, safe=":").encode(), headers)


_A_TOKEN = (
    b'{"access_token":"' + b"x" * 43 + b'","token_type":"Bearer","upstream":"acme",'
    b'"expires_in":3599,"scope":"openid profile email"}'
)


async def bare_mtls(world: World) -> int:
    """The bare handler behind mTLS, as the internal listener is; its port."""
    return await bare_server(
        world,
        "bare-mtls",
        _A_TOKEN,
        f"--tls={world.layout.server_credential}",
        f"--client-ca={world.layout.workload_ca}",
        "--uvloop",
    )


async def bare_server(world: World, name: str, body: bytes, *options: str) -> int:
    file = world.layout.folder / f"{name}.json"
    file.write_bytes(body)
    port = plan(world.layout.folder).public_port
    await world.processes.start(
        name, "tests.bench.bare", f"--port={port}", f"--body={file}", *options
    )
    await until_listening(port)
    pin(world.processes.pids, core=0)
    return port
