"""What does a stranger cost who sends ten times what a limit allows, and who notices?

Signed-in users exchange and refresh at a steady rate for a minute: beside a stranger, and beside as
many ordinary requests. The stranger's CPU is what the authserver uses beyond the users alone, in
per cent of a core. Limits are the product's own; only that of releases is lifted, for the ordinary
exchanges.
"""

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from yarl import URL

from authserver.internal.listener import ROUTE
from chassis import clock
from demo.browser import Browser
from demo.layout import HOST, Layout
from tests.bench.figures import Figure, table
from tests.bench.load import Load
from tests.bench.minting import Minter
from tests.bench.open_loop import Steady, opened
from tests.bench.release import exchange_call
from tests.bench.world import World, running
from tests.support.deployment import CALLBACK, Pkce, walk

SECONDS: Final = 60.0
_ORDINARY_SECONDS: Final = 30.0
_EXCHANGES: Final = 50.0  # a second
_GRANTS: Final = 5.0
_LINES: Final = 4
_USERS: Final = 4  # of each client
_STRANGER: Final = "203.0.113.9"

Send = Callable[[int], Awaitable[int]]


@dataclass
class Client:
    """A registered client and the refresh tokens of its users."""

    fields: dict[str, str]
    refresh_tokens: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Minute:
    """What the users met in one phase; latencies in milliseconds, CPU in per cent of a core."""

    exchanges: Load
    grants_p99: float
    refused: int
    cpu: float
    answers: Counter[int]


class Scene:
    """The users, whom nothing should reach, and everybody else's requests."""

    def __init__(
        self, world: World, http: aiohttp.ClientSession, mtls: aiohttp.ClientSession
    ) -> None:
        self._world, self._http, self._mtls = world, http, mtls
        self._minter = Minter(world.jwt, world.layout.signing_key)
        self._sources = count(1)
        self.public: Client
        self.confidential: Client

    async def sign_in(self) -> None:
        self.public = await self._client("none")
        self.confidential = await self._client("client_secret_post")

    async def _client(self, method: str) -> Client:
        asked = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": method,
                 "grant_types": ["authorization_code", "refresh_token"]}  # fmt: skip
        async with self._post("register", json=asked) as answer:
            registered = await answer.json()
        names = ("client_id", "client_secret")
        client = Client({name: registered[name] for name in names if name in registered})
        for _ in range(_USERS):
            client.refresh_tokens.append(await self._signed_in(client))
        return client

    async def _signed_in(self, client: Client) -> str:
        pkce = Pkce()
        async with Browser(leave_at=CALLBACK) as browser:
            answer = await walk(
                browser, self._authorize_url(client.fields["client_id"], pkce), "bob"
            )
        fields = client.fields | {
            "grant_type": "authorization_code", "code": answer["code"],
            "redirect_uri": CALLBACK, "code_verifier": pkce.verifier,
        }  # fmt: skip
        async with self._post("token", data=fields) as redeemed:
            return str((await redeemed.json())["refresh_token"])

    def _authorize_url(self, client_id: str, pkce: Pkce) -> str:
        query: dict[str, str] = {
            "response_type": "code", "client_id": client_id, "redirect_uri": CALLBACK,
            "resource": self._world.server.resource, "code_challenge": pkce.challenge,
            "code_challenge_method": "S256", "state": "s",
        }  # fmt: skip
        return str(URL(f"{self._world.layout.issuer}/oauth/authorize").with_query(query))

    def _post(self, path: str, source: str | None = None, **options: Any) -> Any:
        headers = {"X-Forwarded-For": source or self._new_source()}
        url = f"{self._world.layout.issuer}/oauth/{path}"
        return self._http.post(url, headers=headers, **options)

    def _new_source(self) -> str:
        number = next(self._sources)
        return f"198.{18 + number // 65536 % 2}.{number // 256 % 256}.{number % 256}"

    # The users.

    def _mint(self) -> str:
        """The measurement outlasts the JWT of the sign-in."""
        now = int(clock.wall())
        return self._minter(iat=now, exp=now + 600)

    async def minute(self, others: Send | None, rate: float, seconds: float) -> Minute:
        """The users' traffic, beside `rate` requests a second of somebody else."""
        over, answers = asyncio.Event(), Counter[int]()
        beside = (
            asyncio.create_task(_paced(others, rate, over, answers)) if others is not None else None
        )
        grants = asyncio.create_task(self._grants(over))
        port, pid = self._world.layout.internal_port, self._world.processes.pids[1]
        lines = await opened(HOST, port, [self._world.workload_tls()], _LINES)
        steady = Steady(lines, lambda _: exchange_call(port, self._mint()), rate=_EXCHANGES)
        used, begun = _cpu_seconds(pid), time.perf_counter()
        exchanges = await steady.run(lambda passed: passed >= seconds)
        cpu = 100 * (_cpu_seconds(pid) - used) / (time.perf_counter() - begun)
        over.set()
        latencies, refused = await grants
        if beside is not None:
            await beside
        for line in lines:
            line.close()
        p99 = statistics.quantiles(latencies, n=100)[98]
        return Minute(exchanges, p99, refused + steady.failed, cpu, answers)

    async def _grants(self, over: asyncio.Event) -> tuple[list[float], int]:
        """Users of both clients refresh in turn, each from an address of their own."""
        users = [(client, n) for n in range(_USERS) for client in (self.public, self.confidential)]
        latencies: list[float] = []
        refused = 0
        for turn in count():
            if over.is_set():
                return latencies, refused
            client, number = users[turn % len(users)]
            fields = client.fields | {
                "grant_type": "refresh_token", "refresh_token": client.refresh_tokens[number]
            }  # fmt: skip
            begun = time.perf_counter()
            source = f"192.0.2.{1 + turn % len(users)}"
            async with self._post("token", source, data=fields) as answer:
                body = await answer.json()
                latencies.append((time.perf_counter() - begun) * 1000)
                if answer.status == 200:
                    client.refresh_tokens[number] = body["refresh_token"]
                else:
                    refused += 1
            await asyncio.sleep(max(0, 1 / _GRANTS - (time.perf_counter() - begun)))
        raise AssertionError

    # Everybody else.

    async def forged_jwt(self, _: int) -> int:
        return await self._exchange(self._world.jwt[:-8] + "A" * 8)

    async def good_jwt(self, _: int) -> int:
        return await self._exchange(self._mint())

    async def _exchange(self, jwt: str) -> int:
        call = exchange_call(self._world.layout.internal_port, jwt)
        url = f"https://{HOST}:{self._world.layout.internal_port}{ROUTE}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = call.partition(b"\r\n\r\n")[2]
        async with self._mtls.post(url, data=body, headers=headers) as answer:
            return answer.status

    async def registration(self, _: int) -> int:
        asked = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
        return await self._status("register", json=asked)

    async def metadata_document(self, number: int) -> int:
        return await self._authorize(f"https://strangers.invalid/{number}.json", _STRANGER)

    async def guessed_secret(self, number: int) -> int:
        fields = self.confidential.fields | {"client_secret": f"guess-{number}"}
        return await self._status("token", data=fields | _NO_GRANT)

    async def token_request(self, _: int) -> int:
        return await self._status("token", data=self.public.fields | _NO_GRANT)

    async def sign_in_begun(self, _: int) -> int:
        return await self._authorize(self.public.fields["client_id"], _STRANGER)

    async def ordinary(self, _: int) -> int:
        """An authorization request of an address that makes no other."""
        return await self._authorize(self.public.fields["client_id"], self._new_source())

    async def _authorize(self, client_id: str, source: str) -> int:
        url, headers = self._authorize_url(client_id, Pkce()), {"X-Forwarded-For": source}
        async with self._http.get(url, headers=headers, allow_redirects=False) as answer:
            return answer.status

    async def _status(self, path: str, **options: Any) -> int:
        async with self._post(path, _STRANGER, **options) as answer:
            return int(answer.status)


_NO_GRANT: Final = {"grant_type": "refresh_token", "refresh_token": "x" * 43}

# What a stranger sends, how often a second, and what is ordinary in its place.
_STRANGERS: Final[tuple[tuple[str, str, float, str], ...]] = (
    ("forged JWTs, 100 a minute", "forged_jwt", 100 / 60, "good_jwt"),
    ("forged JWTs, 200 a second", "forged_jwt", 200.0, "good_jwt"),
    ("registrations, 100 a minute", "registration", 100 / 60, "ordinary"),
    ("metadata documents, 100 a minute", "metadata_document", 100 / 60, "ordinary"),
    ("guessed secrets, 300 a minute", "guessed_secret", 300 / 60, "ordinary"),
    ("sign-ins begun, 100 a second", "sign_in_begun", 100.0, "ordinary"),
    ("token requests, 100 a second", "token_request", 100.0, "ordinary"),
)


async def measure() -> list[Figure]:
    """Here "bare" is the same number of ordinary requests; for CPU, the users alone."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), prepare=_own_limits) as world:
            connector = aiohttp.TCPConnector(ssl=world.workload_tls(), limit=8)
            async with (
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
                aiohttp.ClientSession(connector=connector) as mtls,
            ):
                scene = Scene(world, http, mtls)
                await scene.sign_in()
                alone = await scene.minute(None, 0, _ORDINARY_SECONDS)
                twins: dict[tuple[str, float], Minute] = {}
                for name, stranger, rate, ordinary in _STRANGERS:
                    beside = await scene.minute(getattr(scene, stranger), rate, SECONDS)
                    if (ordinary, rate) not in twins:
                        twins[ordinary, rate] = await scene.minute(
                            getattr(scene, ordinary), rate, _ORDINARY_SECONDS
                        )
                    rows = [*_rows(name, alone, beside, twins[ordinary, rate])]
                    print(f"{name}: {dict(beside.answers)}", table(rows), sep="\n", flush=True)
                    figures += rows
    return figures


def _rows(name: str, alone: Minute, beside: Minute, ordinary: Minute) -> Iterator[Figure]:
    row = f"beside {name}"
    yield Figure(f"{row}: exchanges", "p99 ms", beside.exchanges.p99, ordinary.exchanges.p99)
    yield Figure(f"{row}: refresh grants", "p99 ms", beside.grants_p99, ordinary.grants_p99)
    yield Figure(f"{row}: users refused", "requests", beside.refused, None)
    yield Figure(
        f"{row}: the stranger's CPU", "% of a core", max(0.0, beside.cpu - alone.cpu), None
    )


async def _paced(send: Send, rate: float, over: asyncio.Event, answers: Counter[int]) -> None:
    begun, under_way = time.perf_counter(), set[asyncio.Task[None]]()

    async def one(number: int) -> None:
        answers[await send(number)] += 1

    for number in count():
        await asyncio.sleep(max(0, begun + number / rate - time.perf_counter()))
        if over.is_set():
            break
        task = asyncio.create_task(one(number))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)


def _cpu_seconds(pid: int) -> float:
    """Of all threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text("ascii").split()[0]) for t in threads) / 1e9


def _own_limits(layout: Layout) -> None:
    configuration = yaml.safe_load(layout.config.read_text())
    configuration["limits"] = {"releasesPerWorkloadPerSecond": 1000}
    configuration["listeners"]["public"] |= {
        "behindTLSProxy": True, "trustedProxies": [f"{HOST}/32"]
    }  # fmt: skip
    layout.config.write_text(yaml.safe_dump(configuration))
