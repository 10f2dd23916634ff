"""One authserver that holds 1000 sidecars: what each connection weighs, and what a call takes.

Then everything is replaced under load, as an operator would: the server's certificate, the
workloads' CA, and a sidecar's own certificate. No request may fail.
"""

import asyncio
import resource
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.layout import HOST, Layout, Server
from demo.pki import CertificateAuthority, write_credential, write_private
from tests.bench.figures import Figure, medians
from tests.bench.footprint import resident_megabytes
from tests.bench.load import Load
from tests.bench.memory import metric, token_call
from tests.bench.minting import Minter
from tests.bench.open_loop import Line, Steady, answer, opened
from tests.bench.release import bare_mtls, exchange_call
from tests.bench.world import World, running, sign_in, workload_tls

LINES: Final = 1000
_WORKLOADS: Final = tuple(f"server-{number}" for number in range(10))
_OPEN_FILES: Final = 4096
_RATE: Final = 500.0
_SECONDS: Final = 2.0
_ROUNDS: Final = 3
_NEW_LINE_SECONDS: Final = 0.05
_SIDECAR_RATE: Final = 200.0
_SIDECAR_ROTATIONS: Final = 2
_PATIENCE_SECONDS: Final = 20.0


async def measure() -> list[Figure]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:  # the processes we start inherit it
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard), hard))
    next_cas = NextAuthorities.create()
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), workloads=_WORKLOADS, prepare=next_cas.announce) as world:
            crowd = await Crowd.gathered(world)
            return [
                *await crowd.weigh(),
                *await crowd.take_load(),
                await crowd.replace_certificates(next_cas),
                await _replace_a_sidecars_certificate(world, next_cas),
            ]


@dataclass(frozen=True)
class NextAuthorities:
    """The CAs that take over in the middle."""

    servers: CertificateAuthority
    workloads: CertificateAuthority

    @classmethod
    def create(cls) -> "NextAuthorities":
        return cls(CertificateAuthority.create("next"), CertificateAuthority.create("next"))

    def announce(self, layout: Layout) -> None:
        """Callers trust the next CA of servers from the start."""
        both = layout.server_ca.read_bytes() + self.servers.certificate_pem
        write_private(layout.server_ca, both)

    def issue(self, server: Server, folder: Path) -> Path:
        write_credential(folder, self.workloads.issue_svid(server.spiffe_id))
        return folder


@dataclass(frozen=True)
class Side:
    """One of the two servers, and the connections to it."""

    port: int
    pid: int
    lines: list[Line]


class Crowd:
    """A thousand connections to the authserver, and as many to the bare mTLS handler."""

    def __init__(self, layout: Layout, calls: Sequence[bytes], ours: Side, bare: Side) -> None:
        self._layout, self._calls = layout, calls
        self._ours, self._bare = ours, bare
        self._contexts = [
            workload_tls(layout.server_ca, server.credential) for server in layout.servers
        ]

    @classmethod
    async def gathered(cls, world: World) -> "Crowd":
        """Nobody connected yet; the callers are of ten workloads, each with a user of its own."""
        layout, port = world.layout, world.layout.internal_port
        jwts = [await sign_in(layout, server) for server in layout.servers]
        bare = await bare_mtls(world)
        _, authserver, *_, bare_pid = world.processes.pids
        calls = [exchange_call(port, jwt) for jwt in jwts]
        return cls(layout, calls, Side(port, authserver, []), Side(bare, bare_pid, []))

    async def weigh(self) -> list[Figure]:
        """Every connection has had an answer when it is weighed."""
        kilobytes, per_second = zip(
            *[await self._fill(side) for side in (self._ours, self._bare)], strict=True
        )
        held = f"authserver, {LINES:,} mTLS connections"
        return [
            Figure(f"{held}, memory of each", "KB", *kilobytes),
            Figure(f"{held}, opened and called once", "connections/s", *per_second),
        ]

    async def _fill(self, side: Side) -> tuple[float, float]:
        warm = await opened(HOST, side.port, self._contexts, 16)
        await self._steady(warm).run(lambda passed: passed >= 2)
        before, now = resident_megabytes(side.pid), asyncio.get_running_loop().time
        begun = now()
        side.lines.extend(await opened(HOST, side.port, self._contexts, LINES))
        calls = (answer(line, self._call(at)) for at, line in enumerate(side.lines))
        if not all(await asyncio.gather(*calls)):
            raise ValueError("a new connection was not served")
        taken, grown = now() - begun, resident_megabytes(side.pid) - before
        _close(warm)
        return grown * 1024 / LINES, LINES / taken

    async def take_load(self) -> list[Figure]:
        rounds: list[tuple[Load, Load]] = []
        for _ in range(_ROUNDS + 1):
            ours, bare = [await self._round(side) for side in (self._ours, self._bare)]
            rounds.append((ours, bare))
        name = f"authserver, exchanges at {_RATE:,.0f} requests/s over {LINES:,} connections"
        return medians(name, rounds[1:], ("p50 ms", "p99 ms"))

    async def _round(self, side: Side) -> Load:
        load = self._steady(side.lines)
        measured = await load.run(lambda passed: passed >= _SECONDS)
        if load.failed:
            raise ValueError(f"{load.failed} of {load.sent} requests failed")
        return measured

    async def replace_certificates(self, next_cas: NextAuthorities) -> Figure:
        """Counts what failed in all of it, on the connections there were and on new ones."""
        _close(self._bare.lines)
        newcomers = Newcomers(self._ours.port, self._call(0), self._contexts[0])
        load, coming = self._steady(self._ours.lines), asyncio.create_task(newcomers.keep_coming())
        replacing = asyncio.create_task(self._replace(next_cas, newcomers))
        await load.run(lambda _: replacing.done())
        newcomers.over.set()
        await asyncio.gather(replacing, coming)
        _close(self._ours.lines)
        return Figure(
            f"authserver, failed of {load.sent + newcomers.came:,} exchanges while its certificate"
            f" and the workloads' CA were replaced, {newcomers.came:,} of them on new connections",
            "requests",
            load.failed + newcomers.failed,
            None,
        )

    async def _replace(self, next_cas: NextAuthorities, newcomers: "Newcomers") -> None:
        """Each step once the one before is seen to be in force."""
        layout, call, port = self._layout, self._call(0), self._ours.port
        old, first = self._contexts[0], layout.servers[0]
        new = workload_tls(layout.server_ca, next_cas.issue(first, layout.folder / "next"))
        write_credential(layout.server_credential, next_cas.servers.issue_server(ips=(HOST,)))
        await _until(lambda: _meets(port, old, call, issuer="next"))
        next_ca = next_cas.workloads.certificate_pem
        write_private(layout.workload_ca, layout.workload_ca.read_bytes() + next_ca)
        await _until(lambda: _meets(port, new, call))
        newcomers.context = new
        write_private(layout.workload_ca, next_ca)
        await _until(lambda: _is_refused(port, old, call))

    def _steady(self, lines: Sequence[Line]) -> Steady:
        """Each line asks for a token of its own workload's user."""
        calls = {line: self._call(at) for at, line in enumerate(lines)}
        return Steady(lines, calls.__getitem__, rate=_RATE)

    def _call(self, at: int) -> bytes:
        """What the line opened as number `at` asks: contexts were handed out in the same order."""
        return self._calls[at % len(self._calls)]


class Newcomers:
    """Sidecars that come while things change: a connection each, and one exchange on it."""

    def __init__(self, port: int, call: bytes, context: ssl.SSLContext) -> None:
        self._port, self._call, self.context = port, call, context
        self.came = self.failed = 0
        self.over = asyncio.Event()

    async def keep_coming(self) -> None:
        while not self.over.is_set():
            self.came += 1
            self.failed += not await _meets(self._port, self.context, self._call)
            await asyncio.sleep(_NEW_LINE_SECONDS)


async def _replace_a_sidecars_certificate(world: World, next_cas: NextAuthorities) -> Figure:
    """Every call needs an exchange. By now the authserver knows the next CA of workloads only."""
    await _renew(world, next_cas)
    mint, port = Minter(world.jwt, world.layout.signing_key), world.server.sidecar_port
    lines = await opened(HOST, port, [None], 16)
    load = Steady(lines, lambda _: token_call(port, mint()), rate=_SIDECAR_RATE)

    async def renew_again_and_again() -> None:
        for _ in range(_SIDECAR_ROTATIONS):
            await _renew(world, next_cas)

    renewing = asyncio.create_task(renew_again_and_again())
    await load.run(lambda _: renewing.done())
    await renewing
    _close(lines)
    return Figure(
        f"sidecar, failed of {load.sent:,} misses while its certificate was replaced"
        f" {_SIDECAR_ROTATIONS} times",
        "requests",
        load.failed,
        None,
    )


async def _renew(world: World, next_cas: NextAuthorities) -> None:
    """A new certificate, and wait until the sidecar has it in use."""
    name = 'tokenward_credential_reloads_total{result="ok"}'
    reloads = await metric(world.server, name)
    next_cas.issue(world.server, world.server.credential)

    async def reloaded() -> bool:
        return await metric(world.server, name) > reloads

    await _until(reloaded)


async def _meets(port: int, context: ssl.SSLContext, call: bytes, issuer: str = "") -> bool:
    """Whether a new connection gets its answer, from a server with a certificate of `issuer`."""
    try:
        [line] = await opened(HOST, port, [context], 1)
    except OSError:
        return False
    good, named = await answer(line, call), str(line.certificate.get("issuer"))
    line.close()
    return good and issuer in named


async def _is_refused(port: int, context: ssl.SSLContext, call: bytes) -> bool:
    return not await _meets(port, context, call)


async def _until(seen: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await seen():
            await asyncio.sleep(0.1)


def _close(lines: Sequence[Line]) -> None:
    for line in lines:
        line.close()
