"""One run: sessions that ask all the time, faults that come all the time, and what must hold."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import aiohttp

from authserver.storage.contract import StorageUnavailable
from authserver.storage.records import Session
from chassis import clock
from demo.upstream import FakeUpstream
from demo.upstream.grants import Grant
from tests.chaos.faults import Faults
from tests.chaos.surroundings import Child, Gate, Moods
from tests.support.deployment import NOTES
from tests.support.postgresql import PostgresqlServer
from tests.support.replica_processes import ReplicaProcesses

LIFETIME: Final = 6
# Of 6 s: 1.8 s of margin and renewal ahead, 1 s of truncation, 1 s of moved clocks, 0.2 s of noise.
_EARLIEST_NEXT: Final = LIFETIME - 4.0
# A claim that was left behind is taken over after 60 s, and a connection's pauses grow to 60 s.
_CALM_SECONDS: Final = 150.0
_NOTES_ID: Final = "spiffe://example.org/ns/mcp-servers/mcpserver/notes"


@dataclass
class Held:
    """A session under test, and what may have cost it its connection.

    `cause`: at which step a process died that had claimed its refresh token, and how many refreshes
    the upstream had made by then.
    """

    number: int
    session: Session
    jwt: str
    grant: Grant
    lost_since: float | None = None
    cause: tuple[str, int] | None = None
    served_at: float = 0.0


@dataclass
class Tally:
    """Counts of what happened, and every violation in words."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    ended_by: str = "an error"


class Run:
    """Ends after so many refreshes (`rounds`), or after so many seconds of faults."""

    def __init__(self, folder: Path, seed: int, rounds: int, sessions: int, seconds: float) -> None:
        self._folder, self._rounds, self._sessions = folder, rounds, sessions
        self._seconds = seconds
        self.dice, self.tally = random.Random(seed), Tally()
        self.served: set[str] = set()
        self.refreshes = 0
        self._held: list[Held] = []
        self._over = asyncio.Event()

    async def go(self) -> None:
        with PostgresqlServer() as self._postgresql:
            await self._set_up()
            try:
                await self._rounds_of_faults()
            finally:
                self._over.set()
                for child in self._sidecars:
                    await child.end()
                await self._replicas.end()
                await self.gate.shut()
                await self._serving.__aexit__(None, None, None)
                self._check_refreshes()

    # Building.

    async def _set_up(self) -> None:
        self._replicas = ReplicaProcesses(self._folder, self._postgresql)
        ports = self._replicas.ports
        gate = next(ports)
        self.upstream = FakeUpstream(
            client_id="tokenward", client_secret="upstream secret canary",
            redirect_uri="http://127.0.0.1/cb", access_token_lifetime=LIFETIME,
        )  # fmt: skip
        self._serving = self.upstream.serve()
        await self._serving.__aenter__()
        self.gate = Gate(gate, int(self.upstream.issuer.rpartition(":")[2]))
        await self.gate.open()
        self.upstream.issuer = f"http://127.0.0.1:{gate}"
        self.moods = self.upstream.interference = Moods(self.upstream, self.dice, self.served)
        await self._replicas.prepare({"acme": self.upstream.issuer}, module="tests.chaos.replica")
        self._sidecar_ports = [next(ports), next(ports)]
        self._sidecars = [self._sidecar(n, next(ports)) for n in range(2)]
        for child in self._children:
            await child.start()
        self._held = [await self._signed_in(number) for number in range(self._sessions)]

    @property
    def _children(self) -> list[Child]:
        return [*self._replicas.children, *self._sidecars]

    def _sidecar(self, number: int, ops: int) -> Child:
        environment = {
            "TOKENWARD_AUTHSERVER_URL": f"https://127.0.0.1:{self._replicas.internal[number]}",
            "TOKENWARD_AUTHSERVER_CA_FILE": str(self._folder / "ca.pem"),
            "TOKENWARD_CREDENTIAL_DIR": str(self._replicas.svid("notes")),
            "TOKENWARD_SPIFFE_ID": _NOTES_ID,
            "TOKENWARD_RESOURCE": NOTES,
            "TOKENWARD_ISSUER": self._replicas.issuer,
            "TOKENWARD_PORT": str(self._sidecar_ports[number]),
            "TOKENWARD_OPS_PORT": str(ops),
        }
        return Child(f"sidecar-{number}", self._folder / f"s{number}", "sidecar", env=environment)

    async def _signed_in(self, number: int) -> Held:
        found = await self._replicas.signed_in(self.upstream, f"user-{number}", resource=NOTES)
        return Held(number, found.session, found.jwt, found.given.grant)

    # Faults.

    async def _rounds_of_faults(self) -> None:
        traffic = [asyncio.create_task(self._traffic(n)) for n in range(self._sessions)]
        faults = Faults(
            self._replicas.children, self._sidecars, self._postgresql, self.gate, self.moods,
            self.dice, self.tally.faults, self._died,
        )  # fmt: skip
        try:
            await asyncio.sleep(3)
            begun = time.monotonic()
            while self._goes_on(begun):
                for task in traffic:
                    if task.done():
                        task.result()
                await faults.one()
                await asyncio.sleep(self.dice.uniform(0.2, 1.5))
            await faults.end()
            await self._calm()
        finally:
            self._over.set()
            await asyncio.gather(*traffic)

    def _goes_on(self, begun: float) -> bool:
        if sum(self.moods.taken.values()) >= self._rounds:
            self.tally.ended_by = "its rounds"
        elif time.monotonic() - begun >= self._seconds:
            self.tally.ended_by = "its time"
        else:
            return True
        return False

    async def _calm(self) -> None:
        """After the faults every session is served again, be it after a new sign-in."""
        begun = time.monotonic()
        while time.monotonic() - begun < _CALM_SECONDS:
            waiting = [held for held in self._held if held.served_at <= begun]
            if not waiting:
                return
            await asyncio.sleep(0.2)
        for held in waiting:
            self.tally.violations.append(f"session {held.number} is not served at last")

    def _died(self, child: Child) -> None:
        """Whom the death of a replica may have cost what."""
        hurt = child.outstanding()
        for held in self._held:
            if (step := hurt.get(held.session.user_id)) is not None:
                taken = len(self.moods.refreshed_at.get(id(held.grant), ()))
                held.cause = (f"the process was {step}", taken)
                self.tally.unknown["claimed by a process that was killed"] += 1

    # Traffic.

    async def _traffic(self, number: int) -> None:
        dice = random.Random(self.dice.random())
        async with self._replicas.caller("notes") as own, self._replicas.caller("tasks") as foreign:
            plain = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
            async with plain:
                while not self._over.is_set():
                    held = self._held[number]
                    await asyncio.gather(
                        self._ask_directly(own, 0, held),
                        self._ask_directly(own, 1, held),
                        self._ask_sidecar(plain, dice.randrange(2), held),
                    )
                    if dice.random() < 0.05:
                        await self._ask_as_a_stranger(foreign, dice.randrange(2), held)
                    await self._sign_in_again_if_lost(number)
                    await asyncio.sleep(dice.uniform(0.3, 1.2))

    async def _ask_directly(self, http: aiohttp.ClientSession, replica: int, held: Held) -> None:
        asked = clock.wall()
        self._judge(
            held, asked, *await self._replicas.exchange(http, replica, held.jwt), door="direct"
        )

    async def _ask_sidecar(self, http: aiohttp.ClientSession, number: int, held: Held) -> None:
        asked, url = clock.wall(), f"http://127.0.0.1:{self._sidecar_ports[number]}/v1/token"
        headers = {"Authorization": f"Bearer {held.jwt}", "X-Tokenward": "1"}
        try:
            async with http.post(url, json={}, headers=headers) as answer:
                status, body = answer.status, await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            status, body = 0, {}
        self._judge(held, asked, status, body, door="sidecar")

    async def _ask_as_a_stranger(
        self, http: aiohttp.ClientSession, replica: int, held: Held
    ) -> None:
        status, body = await self._replicas.exchange(http, replica, held.jwt)
        self.tally.answers[f"stranger: {status or 'no connection'}"] += 1
        if status == 200 or "access_token" in body:
            self.tally.violations.append("a token went to a workload that does not own it")

    def _judge(
        self, held: Held, asked: float, status: int, body: dict[str, Any], *, door: str
    ) -> None:
        self.tally.answers[f"{door}: {status or 'no connection'}"] += 1
        if status == 200:
            self._judge_token(held, asked, body["access_token"])
        elif status in (400, 401):
            if body.get("error") in ("invalid_grant", "reauthentication_required"):
                held.lost_since = held.lost_since or asked
            else:
                self.tally.violations.append(f"{door} answered {status} {body.get('error')}")
        elif status not in (0, 429, 503):
            self.tally.violations.append(f"{door} answered {status}")

    def _judge_token(self, held: Held, asked: float, token: str) -> None:
        self.served.add(token)
        held.served_at = time.monotonic()
        found = self.upstream.grants._access_tokens.get(token)
        if found is None:
            self.tally.violations.append("a token that the upstream never gave")
        elif found.grant is not held.grant and held is self._held[held.number]:
            self.tally.violations.append("a token of somebody else")
        elif asked > found.expires_at + 1:
            self.tally.violations.append(f"a token expired {asked - found.expires_at:.1f} s ago")

    async def _sign_in_again_if_lost(self, number: int) -> None:
        held = self._held[number]
        if held.lost_since is None:
            return
        cause = self._cause(held)
        if cause is None:
            self.tally.violations.append(f"session {number} lost its connection for no reason")
        self.tally.losses[cause or "no reason"] += 1
        try:
            self._held[number] = await self._signed_in(number)
        except StorageUnavailable:
            return

    def _cause(self, held: Held) -> str | None:
        """Why the upstream ended the grant: it had acted, and its answer reached nobody."""
        acted = self.moods.last.get(id(held.grant))
        if not held.grant.dead or acted is None or acted.access_token in self.served:
            return None
        if acted.answer_lost:
            return "the upstream acted and its answer was lost"
        taken = len(self.moods.refreshed_at[id(held.grant)])
        # The call that was under way may have been taken since; one more means it survived.
        if held.cause is not None and taken <= held.cause[1] + 1:
            return held.cause[0]
        return None

    def _check_refreshes(self) -> None:
        """What the upstream saw in the whole run."""
        self.refreshes = sum(self.moods.taken.values())
        self.tally.unknown.update(self.moods.broken_off)
        if self.gate.resets:
            self.tally.unknown["reset in the closed accept queue"] = self.gate.resets
        if self.refreshes < self._sessions:
            self.tally.violations.append("too few refreshes: the run says nothing")
        for times in self.moods.taken.values():
            if times > 1:
                self.tally.violations.append(f"a refresh token was taken {times} times")
        self.tally.violations += [
            "a refresh token was presented whose successor is known"
        ] * self.moods.successor_known
        for times_of_one in self.moods.refreshed_at.values():
            for before, after in pairwise(times_of_one):
                if after - before < _EARLIEST_NEXT:
                    self.tally.violations.append(
                        f"two refreshes of one expiry, {after - before:.2f} s apart"
                    )
