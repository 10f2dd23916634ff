"""How fast is a token: from the sidecar's memory, and by an exchange over warm mTLS?"""

import tempfile
from pathlib import Path
from urllib.parse import urlencode

from authserver.internal import GRANT_TYPE
from demo.layout import HOST, plan
from tests.bench.figures import Figure, alternate
from tests.bench.load import drive, post
from tests.bench.world import World, pin, running

_CONNECTIONS = 16
_JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as world:
            return [*await _hits(world), *await _exchanges(world)]


async def _hits(world: World) -> list[Figure]:
    """The same bytes from the sidecar's memory and from a handler that does nothing else."""
    port = world.server.sidecar_port
    request = post(
        "/v1/token",
        b"{}",
        {
            "Host": f"{HOST}:{port}",
            "Authorization": f"Bearer {world.jwt}",
            "X-Tokenward": "1",
            "Content-Type": "application/json",
        },
    )
    bare = await bare_server(world, "bare-http", _A_TOKEN)
    return await alternate(
        "sidecar, token from memory",
        lambda c, s: drive(HOST, port, request, connections=c, seconds=s),
        lambda c, s: drive(HOST, bare, request, connections=c, seconds=s),
        connections=(1, _CONNECTIONS),
    )


async def _exchanges(world: World) -> list[Figure]:
    """The same JWT exchanged again and again, one storage read each, SQLite."""
    port = world.layout.internal_port
    form = urlencode(
        {
            "grant_type": GRANT_TYPE,
            "subject_token": world.jwt,
            "subject_token_type": _JWT_TYPE,
        }
    ).encode()
    request = post(
        "/internal/token-exchange",
        form,
        {"Host": f"{HOST}:{port}", "Content-Type": "application/x-www-form-urlencoded"},
    )
    tls = world.workload_tls()
    folder = str(world.layout.server_credential)
    bare = await bare_server(
        world,
        "bare-mtls",
        _A_TOKEN,
        f"--tls={folder}",
        f"--client-ca={world.layout.workload_ca}",
        "--uvloop",
    )
    return await alternate(
        "authserver, exchange over warm mTLS",
        lambda c, s: drive(HOST, port, request, connections=c, seconds=s, tls=tls),
        lambda c, s: drive(HOST, bare, request, connections=c, seconds=s, tls=tls),
        connections=(_CONNECTIONS,),
    )


_A_TOKEN = (
    b'{"access_token":"' + b"x" * 43 + b'","token_type":"Bearer","upstream":"acme",'
    b'"expires_in":3599,"scope":"openid profile email"}'
)


async def bare_server(world: World, name: str, body: bytes, *options: str) -> int:
    file = world.layout.folder / f"{name}.json"
    file.write_bytes(body)
    port = plan(world.layout.folder).public_port
    await world.processes.start(
        name, "tests.bench.bare", f"--port={port}", f"--body={file}", *options
    )
    if name != "bare-mtls":
        await world.processes.ready(name, f"http://{HOST}:{port}/")
    pin(world.processes.pids, core=0)
    return port
