"""A provider's outage costs nobody a sign-in: 40 users each at five providers that fail together.

Two authservers share one PostgreSQL. Each provider rotates refresh tokens, and reuse of a spent one
ends the grant. For 90 s each fails in a way of its own, and meanwhile replicas are killed and
started again. Every limit is the product's own; only the lifetime of access tokens is short.
"""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from chassis import clock
from demo.upstream import FakeUpstream
from demo.upstream.protocol import InvalidToken
from tests.drills.lateness import Lateness
from tests.drills.troubles import MODES, Trouble
from tests.drills.under_way import Process, UnderWay
from tests.support.postgresql import PostgresqlServer
from tests.support.replica_processes import NAMESPACE, ReplicaProcesses, SignedIn

LIFETIME: Final = 60
_BEFORE_SECONDS: Final = 8.0
# Longer than a lease and the pauses that come after it.
_MAX_RECOVERY_SECONDS: Final = 180.0
_KILLS_AT: Final = (0.15, 0.45, 0.75, 1.0)  # parts of the outage
_BETWEEN_ASKS: Final = 1.5
_SERVES_SECONDS: Final = 3.0  # a token that has so much left is still valid when the answer comes
# What a process had asked for just before it was killed is lost with it.
_LOST_WITH_PROCESS: Final = 5.0
# On a machine that stands still for so long, callers give up on answers that are on their way.
_STANDS_STILL_SECONDS: Final = 3.0


@dataclass
class User:
    """One of a provider's users, and what became of them."""

    name: str
    signed_in: SignedIn
    token: str
    valid_until: float
    lost: str | None = None
    served_after: bool = False


@dataclass
class Provider:
    """A provider, its users, and how they were answered."""

    upstream: FakeUpstream
    trouble: Trouble
    workload: str
    users: list[User] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    recovered_after: float | None = None

    @property
    def losses(self) -> Counter[str]:
        return Counter(user.lost for user in self.users if user.lost is not None)


class OutageDrill:
    def __init__(self, folder: Path, seed: int, users: int, seconds: float) -> None:
        self._folder, self._count, self._seconds = folder, users, seconds
        self._dice = random.Random(seed)
        self._over, self._ended_at = asyncio.Event(), 0.0
        self._kills: dict[Process, float] = {}
        self.lateness = Lateness()
        self.providers: list[Provider] = []

    @property
    def kills(self) -> int:
        return len(self._kills)

    async def run(self) -> None:
        with PostgresqlServer() as postgresql:
            self._replicas = ReplicaProcesses(self._folder, postgresql)
            async with AsyncExitStack() as stack:
                await self._set_up(stack)
                watching = asyncio.create_task(self.lateness.watch())
                asking = [
                    asyncio.create_task(self._ask(provider, number))
                    for provider in self.providers
                    for number in range(self._count)
                ]
                try:
                    await self._outage(asking)
                    await self._recovery()
                finally:
                    self._over.set()
                    await asyncio.gather(*asking)
                    watching.cancel()

    async def _set_up(self, stack: AsyncExitStack) -> None:
        for mode in MODES:
            upstream = FakeUpstream(
                client_id="tokenward", client_secret="upstream secret canary",
                redirect_uri="http://127.0.0.1/cb", access_token_lifetime=LIFETIME,
            )  # fmt: skip
            await stack.enter_async_context(upstream.serve())
            dice = random.Random(self._dice.random())
            trouble = Trouble(upstream, mode, self._replicas.children, dice, self.lateness)
            upstream.interference = trouble
            number = len(self.providers)
            self.providers.append(Provider(upstream, trouble, f"server-{number}"))
        await self._replicas.prepare(
            {p.workload: p.upstream.issuer for p in self.providers},
            [_resource(p.workload) for p in self.providers],
        )
        stack.push_async_callback(self._replicas.end)
        for provider in self.providers:
            provider.users = [await self._user(provider, n) for n in range(self._count)]
        self._callers = {
            p.workload: await stack.enter_async_context(self._replicas.caller(p.workload))
            for p in self.providers
        }
        for child in self._replicas.children:
            await child.start()
        await self._replicas.ready()

    async def _user(self, provider: Provider, number: int) -> User:
        """Their tokens are of different ages, so that they do not end all at once."""
        age, subject = number * LIFETIME // (2 * self._count), f"user-{number}"
        signed_in = await self._replicas.signed_in(
            provider.upstream,
            subject,
            name=provider.workload,
            resource=_url(provider.workload),
            workload=provider.workload,
            age=age,
        )
        ends = clock.wall() + LIFETIME - age
        return User(subject, signed_in, signed_in.given.access_token, ends)

    # The outage.

    async def _outage(self, asking: list[asyncio.Task[None]]) -> None:
        await asyncio.sleep(_BEFORE_SECONDS)
        for provider in self.providers:
            provider.trouble.begin()
        begun = time.monotonic()
        for number, part in enumerate(_KILLS_AT):
            await asyncio.sleep(begun + part * self._seconds - time.monotonic())
            _raise_what_failed(asking)
            if part == _KILLS_AT[-1]:
                self._end_outage()
                await asyncio.sleep(2)  # amid the recovery
            await self._kill(number % 2)

    def _end_outage(self) -> None:
        for provider in self.providers:
            provider.trouble.on = False
        self._ended_at = time.monotonic()

    async def _kill(self, replica: int) -> None:
        child = self._replicas.children[replica]
        process = replica, child.pid
        await child.end()
        self._kills[process] = time.monotonic()
        await child.start()

    async def _recovery(self) -> None:
        while time.monotonic() - self._ended_at < _MAX_RECOVERY_SECONDS:
            waiting = 0
            for provider in self.providers:
                missing = sum(not user.served_after and not user.lost for user in provider.users)
                if missing == 0 and provider.recovered_after is None:
                    provider.recovered_after = time.monotonic() - self._ended_at
                waiting += missing
            if waiting == 0:
                break
            await asyncio.sleep(0.2)
        for provider in self.providers:
            provider.violations += [
                f"{user.name} is not served after the outage"
                for user in provider.users
                if not user.served_after and not user.lost
            ]
            provider.violations += _crowding(provider.trouble.under_way)

    # The users.

    async def _ask(self, provider: Provider, number: int) -> None:
        user, http = provider.users[number], self._callers[provider.workload]
        replica = number % 2
        await asyncio.sleep(_BETWEEN_ASKS * number / self._count)
        while not self._over.is_set() and user.lost is None:
            replica = 1 - replica
            await self._ask_once(provider, user, http, replica)
            await asyncio.sleep(_BETWEEN_ASKS)

    async def _ask_once(
        self, provider: Provider, user: User, http: aiohttp.ClientSession, replica: int
    ) -> None:
        after_the_outage = self._ended_at > 0
        status, body = await self._replicas.exchange(http, replica, user.signed_in.jwt)
        provider.answers[str(status or "no connection")] += 1
        if status == 200:
            self._take(provider, user, body["access_token"])
            user.served_after |= after_the_outage
        elif status == 400 and body.get("error") == "invalid_grant":
            self._lose(provider, user)
        elif status not in (0, 503):
            provider.violations.append(f"{user.name} was answered {status} {body.get('error')}")
        elif status == 503 and user.valid_until - clock.wall() > _SERVES_SECONDS:
            provider.violations.append(f"{user.name} was refused a token that is still valid")

    def _take(self, provider: Provider, user: User, token: str) -> None:
        try:
            grant = provider.upstream.grants.bearer(token)
        except InvalidToken:
            provider.violations.append(f"{user.name} got a token that does not serve")
            return
        if grant is not user.signed_in.given.grant:
            provider.violations.append(f"{user.name} got a token of somebody else")
        if token != user.token:
            user.token = token
            user.valid_until = provider.upstream.grants._access_tokens[token].expires_at

    def _lose(self, provider: Provider, user: User) -> None:
        user.lost = self._cause(provider, user)
        if user.lost == "no cause":
            provider.violations.append(f"{user.name} lost the sign-in without a cause")

    def _cause(self, provider: Provider, user: User) -> str:
        """Why the upstream ended the grant: it had acted, and its answer reached nobody."""
        grant = user.signed_in.given.grant
        acted = provider.trouble.last.get(id(grant))
        if not grant.dead or acted is None or acted.access_token == user.token:
            return "no cause"
        if acted.answer_lost:
            return "the upstream acted and its answer was lost"
        killed = self._kills.get(acted.process)
        if killed is not None and killed - acted.at < _LOST_WITH_PROCESS + 2 * acted.late:
            return "the upstream acted and the process was killed"
        if acted.caller_gone:
            return "the upstream acted when its caller had given up"
        if acted.late > _STANDS_STILL_SECONDS:
            return "the upstream acted while the machine stood still for seconds"
        return "no cause"


def _crowding(seen: UnderWay) -> list[str]:
    found = []
    if seen.beside_a_slow_one:
        found.append(f"{seen.beside_a_slow_one} calls beside a slow one")
    if seen.most_in_trouble > 1:
        found.append(f"{seen.most_in_trouble} calls at once to a provider in trouble")
    return found


def _raise_what_failed(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def _url(workload: str) -> str:
    return f"https://{workload}.example.com/mcp"


def _resource(workload: str) -> dict[str, Any]:
    return {
        "resource": _url(workload),
        "workload": {"namespace": NAMESPACE, "name": workload},
        "upstreams": [workload],
        "scopes": ["mcp"],
    }
