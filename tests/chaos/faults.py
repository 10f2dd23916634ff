"""The faults of a run: what is killed, stopped, cut off or moved, one after the other."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.replica import STEPS
from tests.chaos.surroundings import Child, Gate, Moods
from tests.support.postgresql import PostgresqlServer

_STEP_SECONDS: Final = 3.0  # how long a replica is given to come to the step at which it dies


@dataclass
class Faults:
    """`died` hears of each dead replica before it is started again."""

    replicas: list[Child]
    sidecars: list[Child]
    postgresql: PostgresqlServer
    gate: Gate
    moods: Moods
    dice: random.Random
    counts: Counter[str]
    died: Callable[[Child], None]

    async def one(self) -> None:
        faults: Sequence[Callable[[], Awaitable[None]]] = [self._kill_at_a_step] * 6 + [
            self._kill_at_random, self._stop_postgresql, self._crash_postgresql,
            self._partition, self._bad_mood, self._bad_mood, self._move_clocks,
            self._restart_everything,
        ]  # fmt: skip
        await self.dice.choice(faults)()

    async def end(self) -> None:
        """Nothing goes wrong from here on."""
        self.moods.mood = None
        for child in self.replicas:
            (child.folder / "step").unlink(missing_ok=True)
        await self.revive()

    async def revive(self) -> None:
        """Start dead replicas again, after noting whom their deaths may have cost what."""
        for child in self.replicas:
            if not child.running:
                self.died(child)
                await child.start()

    async def _kill_at_a_step(self) -> None:
        child, step = self.dice.choice(self.replicas), self.dice.choice(STEPS)
        (child.folder / "step").write_text(step)
        for _ in range(int(_STEP_SECONDS / 0.05)):
            await asyncio.sleep(0.05)
            if not child.running:
                self.counts[f"killed {step}"] += 1
                break
        (child.folder / "step").unlink(missing_ok=True)
        await self.revive()

    async def _kill_at_random(self) -> None:
        await self.dice.choice(self.replicas).end()
        self.counts["killed at a random moment"] += 1
        await self.revive()

    async def _stop_postgresql(self) -> None:
        await self._outage(self.postgresql.stop, "PostgreSQL stopped")

    async def _crash_postgresql(self) -> None:
        await self._outage(self.postgresql.kill, "PostgreSQL killed")

    async def _outage(self, end: Callable[[], Any], what: str) -> None:
        await asyncio.to_thread(end)
        self.counts[what] += 1
        await asyncio.sleep(self.dice.uniform(0.5, 3))
        await asyncio.to_thread(self.postgresql.start)

    async def _partition(self) -> None:
        await self.gate.shut()
        self.counts["upstream not reachable"] += 1
        await asyncio.sleep(self.dice.uniform(1, 4))
        await self.gate.open()

    async def _bad_mood(self) -> None:
        self.moods.mood = self.dice.choice(("refuses", "breaks off before", "breaks off after"))
        self.counts[f"upstream {self.moods.mood}"] += 1
        await asyncio.sleep(self.dice.uniform(0.5, 1.5))
        self.moods.mood = None

    async def _move_clocks(self) -> None:
        for child in self.replicas:
            (child.folder / "clock").write_text(str(round(self.dice.uniform(-0.5, 0.5), 2)))
        self.counts["clocks moved"] += 1

    async def _restart_everything(self) -> None:
        for child in (*self.replicas, *self.sidecars):
            await child.end()
        await asyncio.to_thread(self.postgresql.stop)
        await asyncio.to_thread(self.postgresql.start)
        self.counts["everything restarted"] += 1
        await self.revive()
        for child in self.sidecars:
            await child.start()
