"""The claim on a refresh token as docs/explanation/refresh-claims.md has it, on both engines.

A machine of hypothesis drives `ClaimedRefresh` over the engine's own rows. Each attempt is a
process of its own, whose upstream stops it before the socket and before the answer. The test may
let it go on, kill it, or let time pass.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from prometheus_client import CollectorRegistry

from authserver.connections import upstream_health
from authserver.connections.freshness import lasts
from authserver.connections.refresh_claims import ClaimedRefresh
from authserver.connections.timeouts import RefreshTimeouts
from authserver.metrics import Metrics
from authserver.storage.claim_rows import Claim, ClaimRows
from authserver.storage.connection_rows import AT_KEY, at
from authserver.storage.contract import Database, Row, StorageUnavailable
from authserver.storage.records import Connection, UpstreamTokens
from authserver.upstream.contract import (
    GrantRevoked,
    OutcomeUnknown,
    RefreshRequest,
    Unavailable,
)
from tests.fakes.clock import ManualClock
from tests.support.pages import tables_of
from tests.support.postgresql import PostgresqlServer, starts_postgresql
from tests.support.storage_fixtures import NOW, ROOT, Place, Store

# Minutes on a machine that is busy with something else.
pytestmark = pytest.mark.timeout(400)

TIMEOUTS: Final = RefreshTimeouts(poll=3600.0, store_pauses=(), max_store_pause=0.0)
PAGE: Final = ROOT / "docs/explanation/refresh-claims.md"
HELD: Final = ("claimed", "claimed again", "left behind", "left behind again")


def transitions() -> dict[tuple[str, str], str]:
    """The page's table of events, by state and event."""
    (table,) = (
        rows for section, rows in tables_of(PAGE) if section == "The claim" and len(rows[0]) == 3
    )
    return {(state, event): after for state, event, after in table[1:]}


def state_of(connection: Connection, now: float) -> str:
    """The state that a stored row is in."""
    if connection.dead:
        return "dead"
    if connection.refresh_claim is None:
        return "free" if connection.first_claimed_at is None else "unknown"
    assert connection.refresh_claimed_at is not None
    again = connection.first_claimed_at != connection.refresh_claimed_at
    over = connection.refresh_claimed_at < int(now) - TIMEOUTS.lease
    return ("left behind" if over else "claimed") + (" again" if again else "")


@dataclass
class Process:
    """One attempt: its claim's handle, what it waits for, and whether the token went out."""

    handle: str
    connection: Connection
    before_socket: asyncio.Event = field(default_factory=asyncio.Event)
    before_answer: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    answer: "asyncio.Future[UpstreamTokens] | None" = None
    flight: "asyncio.Task[Connection] | None" = None
    waits: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sent(self) -> bool:
        return self.before_answer.is_set()


class StoppedUpstream:
    """It rotates refresh tokens, promises no grace, and stops each refresh twice."""

    name = "acme"
    registration = None
    rotates_refresh_tokens = True
    repeats_uncertain_refresh = True
    reuse_grace_seconds = 0

    def __init__(self, process: Process, sent: Callable[[Process], Any]) -> None:
        self._process, self._sent = process, sent

    async def refresh(self, request: RefreshRequest) -> UpstreamTokens:
        process = self._process
        process.before_socket.set()
        await process.go.wait()
        if not await request.may_send():
            raise Unavailable("claim_taken_over")
        process.answer = asyncio.get_running_loop().create_future()
        await self._sent(process)
        process.before_answer.set()
        return await process.answer


class LosingDatabase:
    """Storage whose next claim is recorded, and whose answer to it is lost."""

    def __init__(self, database: Database) -> None:
        self._database, self.loses = database, False
        self.fetch_one, self.write = database.fetch_one, database.write

    async def write_returning(self, sql: str, *arguments: object) -> Row | None:
        row = await self._database.write_returning(sql, *arguments)
        if self.loses:
            self.loses = False
            raise StorageUnavailable("answer_lost")
        return row


class LookedAt:
    """Connections that say when a process has looked at one."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store, self._process = store, process

    async def get(self, key: Any) -> Connection | None:
        found = await self._store.connections.get(key)
        self._process.waits.set()
        return found


# Old faults, put back.


class ForgettingRows(ClaimRows):
    """A claim that is given back forgets the earlier ones."""

    async def release_claim(
        self, connection: Connection, handle: str, *, refused_at: int | None = None
    ) -> None:
        await self._database.write(
            "UPDATE connections SET refresh_claim = NULL, refresh_claimed_at = NULL,"
            f" first_claimed_at = NULL WHERE {AT_KEY} AND generation = ? AND refresh_claim = ?",
            *at(connection.key), connection.generation, handle,
        )  # fmt: skip


class SameSecondRows(ClaimRows):
    """Whether a claim is the first is told by two times that may be equal."""

    async def claim(
        self, connection: Connection, handle: str, now: int, *, overdue_before: int = 0
    ) -> Claim | None:
        row = await self._database.write_returning(
            "UPDATE connections SET refresh_claim = ?, refresh_claimed_at = ?,"
            " first_claimed_at = COALESCE(first_claimed_at, ?)"
            f" WHERE {AT_KEY} AND generation = ? AND dead = 0 AND (refresh_claim IS NULL"
            " OR refresh_claimed_at < ?) RETURNING first_claimed_at",
            handle, now, now, *at(connection.key), connection.generation, overdue_before,
        )  # fmt: skip
        if row is None:
            return None
        first = int(row["first_claimed_at"])
        return Claim(handle, first if first != now else None)


class LazyRefresh(ClaimedRefresh):
    """A claim whose answer was lost stays until somebody calls again."""

    def _undo(self, connection: Connection, handle: str) -> None:
        pass


class BlindRefresh(ClaimedRefresh):
    """Nobody looks at the claim again before the token goes to the socket."""

    async def _may_send(
        self, connection: Connection, claim: Claim, place: upstream_health.Place
    ) -> bool:
        return place.may_send()


class Engine:
    """Two handles of one database, on a loop that all examples of a test share."""

    def __init__(self, place: Place) -> None:
        self.runner = asyncio.Runner()
        self.databases = [self.run(place.open()) for _ in range(2)]

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def close(self) -> None:
        for database in self.databases:
            self.run(database.close())
        self.runner.close()


@dataclass(frozen=True)
class Parts:
    """The code under test; an old fault takes the place of one part."""

    rows: type[ClaimRows] = ClaimRows
    refresh: type[ClaimedRefresh] = ClaimedRefresh


class ClaimMachine(RuleBasedStateMachine):
    engine: Engine
    parts: Parts
    table = transitions()

    @initialize(serves=st.booleans())
    def sign_in(self, serves: bool) -> None:
        """`serves`: whether the access token of the sign-in has not ended yet."""
        self.clock = ManualClock(float(NOW if serves else NOW + 3601))
        self.stores = [Store(database) for database in self.engine.databases]
        self.processes: list[Process] = []
        self.at_risk: set[str] = set()
        self.issued = self.attempts = 0
        self.connection: Connection = self.engine.run(self.stores[0].connected())
        self.expected = "free"

    # What processes do.

    @rule(replica=st.sampled_from([0, 1]), loses=st.booleans())
    def claim(self, replica: int, loses: bool) -> None:
        held, loses = self.expected in ("claimed", "claimed again"), loses and not self._serves()
        self.engine.run(self._claim(replica, loses=loses, held=held))
        event = "claim whose answer is lost" if loses else "claim"
        self._expect(f"{event} while the access token serves" if self._serves() else event)

    @precondition(lambda self: self._stopped(sent=False))
    @rule(data=st.data())
    def look_again(self, data: st.DataObject) -> None:
        """The process looks at its claim, and writes to the socket or gives up."""
        process = data.draw(st.sampled_from(self._stopped(sent=False)))
        left = self._latest().refresh_claimed_at or 0
        stands = self._stands(process)
        in_time = left + TIMEOUTS.lease - self.clock() >= TIMEOUTS.flight
        self.engine.run(self._go(process))
        assert process.sent == (stands and in_time), "it wrote to the socket, or should have"
        if stands and not in_time:
            self._expect("the holder's time is short")

    @precondition(lambda self: self._stopped(sent=True))
    @rule(
        data=st.data(),
        event=st.sampled_from(
            [
                "the upstream did not act",
                "no answer comes",
                "new tokens come",
                "the upstream ends the grant",
            ]
        ),
    )
    def upstream_answers(self, data: st.DataObject, event: str) -> None:
        process = data.draw(st.sampled_from(self._stopped(sent=True)))
        stands, token = self._stands(process), process.connection.tokens.refresh_token
        assert token is not None
        new = self._new_tokens()
        answers: dict[str, UpstreamTokens | Exception] = {
            "the upstream did not act": Unavailable("down"),
            "no answer comes": OutcomeUnknown("silence"),
            "new tokens come": new,
            "the upstream ends the grant": GrantRevoked("invalid_grant"),
        }
        if event == "no answer comes":
            self.at_risk.add(token)
        self.engine.run(self._answer(process, answers[event]))
        if not stands:
            return
        self._expect(event)
        if event == "new tokens come":
            latest = self._latest()
            assert latest.tokens == new, "what the holder got is not what is stored"
            assert latest.generation == self.connection.generation + 1
            self.connection = latest

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """A process ends where it stands; its token may be on the way."""
        process = data.draw(st.sampled_from(self.processes))
        token = process.connection.tokens.refresh_token
        if process.sent and token is not None:
            self.at_risk.add(token)
        self.engine.run(self._end(process))

    @rule(seconds=st.sampled_from([1, 30, 46, 61, 3700]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        if state_of(self._latest(), self.clock()).startswith("left behind"):
            self._expect("the lease ends")

    @invariant()
    def the_row_is_in_the_expected_state(self) -> None:
        if hasattr(self, "expected"):
            assert state_of(self._latest(), self.clock()) == self.expected

    def teardown(self) -> None:
        for process in [*getattr(self, "processes", [])]:
            self.engine.run(self._end(process))

    # How it is done.

    def _expect(self, event: str) -> None:
        self.expected = self.table.get((self.expected, event), self.expected)

    def _latest(self) -> Connection:
        found: Connection | None = self.engine.run(
            self.stores[0].connections.get(self.connection.key)
        )
        assert found is not None
        return found

    def _serves(self) -> bool:
        return lasts(self.connection.tokens, self.clock(), 0)

    def _stands(self, process: Process) -> bool:
        return self._latest().refresh_claim == process.handle

    def _stopped(self, *, sent: bool) -> list[Process]:
        return [process for process in getattr(self, "processes", []) if process.sent == sent]

    def _new_tokens(self) -> UpstreamTokens:
        self.issued += 1
        now = int(self.clock())
        return UpstreamTokens(f"at-{self.issued}", f"next-{self.issued}", "openid", now, now + 100)

    async def _claim(self, replica: int, *, loses: bool, held: bool) -> None:
        store = self.stores[replica]
        latest = await store.connections.get(self.connection.key)
        assert latest is not None
        self.attempts += 1
        process = Process(f"handle-{self.attempts}", latest)
        database = LosingDatabase(store.database)
        database.loses = loses
        upstream = StoppedUpstream(process, self._sent)
        refresh = self.parts.refresh(
            LookedAt(store, process),  # type: ignore[arg-type]
            self.parts.rows(database, store.keyring),  # type: ignore[arg-type]
            SimpleNamespace(upstream_of=lambda _: upstream),  # type: ignore[arg-type]
            SimpleNamespace(),  # type: ignore[arg-type]  # its connection never goes
            Metrics(CollectorRegistry()),
            self.clock,
            lambda: process.handle,
            TIMEOUTS,
        )
        flight = process.flight = asyncio.create_task(refresh.next_generation(latest))
        stops = [asyncio.create_task(process.before_socket.wait())]
        if held:
            stops.append(asyncio.create_task(process.waits.wait()))
        await asyncio.wait([flight, *stops], return_when=asyncio.FIRST_COMPLETED)
        for stop in stops:
            stop.cancel()
        if held:
            assert not process.before_socket.is_set(), "two hold one claim"
        if process.before_socket.is_set():
            self.processes.append(process)
        else:
            flight.cancel()
            with suppress(asyncio.CancelledError, Unavailable, GrantRevoked, StorageUnavailable):
                await flight
            await refresh.drain()

    async def _sent(self, process: Process) -> None:
        """The token is on the way: what has to be true at this moment."""
        latest = await self.stores[0].connections.get(self.connection.key)
        assert latest is not None
        assert latest.refresh_claim == process.handle, "sent without the claim"
        token = process.connection.tokens.refresh_token
        if token in self.at_risk:
            assert not lasts(process.connection.tokens, self.clock(), 0), "a serving token at risk"

    async def _go(self, process: Process) -> None:
        process.go.set()
        stop = asyncio.create_task(process.before_answer.wait())
        assert process.flight is not None
        await asyncio.wait([process.flight, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if process.flight.done():
            self.processes.remove(process)
            with suppress(Unavailable):
                await process.flight

    async def _answer(self, process: Process, answer: UpstreamTokens | Exception) -> None:
        self.processes.remove(process)
        assert process.answer is not None
        assert process.flight is not None
        if isinstance(answer, Exception):
            process.answer.set_exception(answer)
        else:
            process.answer.set_result(answer)
        with suppress(Unavailable, GrantRevoked):
            await process.flight

    async def _end(self, process: Process) -> None:
        self.processes.remove(process)
        assert process.flight is not None
        process.flight.cancel()
        with suppress(asyncio.CancelledError):
            await process.flight


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=starts_postgresql)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        place = Place(f"sqlite://{tmp_path}/tokenward.db")
    else:
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        place = Place(asyncio.run(server.create_database()), server.password_file)
    found = Engine(place)
    yield found
    found.close()


def walk(engine: Engine, parts: Parts, examples: int, phases: tuple[Phase, ...]) -> None:
    """Run the machine; an AssertionError says what a sequence came to."""
    machine = type("Machine", (ClaimMachine,), {"engine": engine, "parts": parts})
    bounds = settings(
        max_examples=examples,
        phases=phases,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=bounds)


def test_every_sequence_is_in_the_table(engine: Engine, model_examples: int) -> None:
    walk(engine, Parts(), model_examples, (Phase.generate, Phase.shrink))


@pytest.mark.parametrize(
    ("fault", "rare"),
    [
        (Parts(rows=ForgettingRows), False),
        (Parts(rows=SameSecondRows), True),
        (Parts(refresh=LazyRefresh), False),
        (Parts(refresh=BlindRefresh), False),
    ],
    ids=["forgetting", "same-second", "lazy", "blind"],
)
def test_old_faults_are_found(
    tmp_path: Path, fault: Parts, rare: bool, model_examples: int
) -> None:
    if rare and model_examples < 1000:
        pytest.skip(
            "rare in 300 sequences: `make models` looks for it, test_claims holds the rule itself"
        )
    engine = Engine(Place(f"sqlite://{tmp_path}/tokenward.db"))
    try:
        with pytest.raises(AssertionError):
            walk(engine, fault, max(300, 3 * model_examples), (Phase.generate,))
    finally:
        engine.close()
