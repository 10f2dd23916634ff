"""One run: sessions that ask all the time, faults that come all the time, and what must hold."""

import asyncio
import random
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from authserver.config.loader import load
from authserver.handles import new_handle
from authserver.storage.contract import StorageUnavailable
from authserver.storage.engines.open import open_database
from authserver.storage.records import Grant, Session, UpstreamTokens
from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.signing_keys import SigningKeys, load_signing_key
from chassis import clock
from demo.layout import _free_ports
from demo.pki import CertificateAuthority, write_credential
from demo.upstream import USERS, FakeUpstream
from tests.chaos.replica import STEPS
from tests.chaos.surroundings import Child, Gate, Moods
from tests.support.deployment import NOTES, configuration_of, write_material
from tests.support.postgresql import PostgresqlServer
from tests.support.storage_fixtures import OWNER, Store

LIFETIME: Final = 6
# Of 6 s: 1.8 s of margin and renewal ahead, 1 s of truncation, 1 s of moved clocks, 0.2 s of noise.
_EARLIEST_NEXT: Final = LIFETIME - 4.0
_NOTES_ID: Final = "spiffe://example.org/ns/mcp-servers/mcpserver/notes"
_TASKS_ID: Final = "spiffe://example.org/ns/mcp-servers/mcpserver/tasks"


@dataclass
class Held:
    """A session under test, and what may have cost it its connection."""

    number: int
    session: Session
    jwt: str
    grant: int
    lost_since: float | None = None
    cause: tuple[str, int] | None = None


@dataclass
class Tally:
    """Counts of what happened, and every violation in words."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)


class Run:
    def __init__(self, folder: Path, seed: int, rounds: int, sessions: int) -> None:
        self._folder, self._rounds, self._sessions = folder, rounds, sessions
        self.dice, self.tally = random.Random(seed), Tally()
        self._held: list[Held] = []
        self._over = asyncio.Event()

    async def go(self) -> None:
        with PostgresqlServer() as self._postgresql:
            await self._set_up()
            try:
                await self._rounds_of_faults()
                await self._quiet()
            finally:
                self._over.set()
                self._keep_logs()
                for child in (*self._sidecars, *self._replicas):
                    await child.end()
                await self._gate.shut()
                await self._serving.__aexit__(None, None, None)
                await self._database.close()

    def _keep_logs(self) -> None:
        """Beside the run's folder, which is about to go."""
        for child in self._replicas:
            kept = self._folder.with_name(f"tokenward-chaos-{child.name}.log")
            kept.write_bytes((child.folder / "log").read_bytes())
            self.tally.logs.append(f"the log of {child.name} is in {kept}")

    @property
    def refreshes(self) -> int:
        return sum(self.moods.taken.values())

    # Building.

    async def _set_up(self) -> None:
        ports = _free_ports()
        gate, public = next(ports), [next(ports), next(ports)]
        self._internal = [next(ports), next(ports)]
        self.upstream = FakeUpstream(
            client_id="tokenward", client_secret="upstream secret canary",
            redirect_uri="http://127.0.0.1/cb", access_token_lifetime=LIFETIME,
        )  # fmt: skip
        self._serving = self.upstream.serve()
        await self._serving.__aenter__()
        self._gate = Gate(gate, int(self.upstream.issuer.rpartition(":")[2]))
        await self._gate.open()
        self.upstream.issuer = f"http://127.0.0.1:{gate}"
        self.moods = self.upstream.interference = Moods(self.upstream, self.dice)
        servers, workloads = (CertificateAuthority.create(n) for n in ("servers", "workloads"))
        write_material(self._folder, servers, workloads)
        (self._folder / "ca.pem").write_bytes(servers.certificate_pem)
        for name, spiffe_id in (("notes", _NOTES_ID), ("tasks", _TASKS_ID)):
            write_credential(self._folder / name, workloads.issue_svid(spiffe_id))
        url = await self._postgresql.create_database()
        for number in range(2):
            self._configure(number, url, public, next(ports))
        settings = load(self._folder / "replica-0.yaml")
        self._database = await open_database(url, settings.storage.password)
        self._store = Store(self._database, keyring=settings.keyring())
        keys = SigningKeys([load_signing_key(k.file, k.algorithm) for k in settings.signing_keys])
        self._tokens = AccessTokens(settings.issuer, keys, 3600)
        self._issuer = settings.issuer
        self._replicas = [
            Child(f"replica-{n}", self._folder / f"r{n}", "tests.chaos.replica",
                  str(self._folder / f"replica-{n}.yaml"), str(self._folder / f"r{n}"))
            for n in range(2)
        ]  # fmt: skip
        self._sidecar_ports = [next(ports), next(ports)]
        self._sidecars = [self._sidecar(n, next(ports)) for n in range(2)]
        for child in (*self._replicas, *self._sidecars):
            await child.start()
        self._held = [await self._signed_in(number) for number in range(self._sessions)]

    def _configure(self, number: int, url: str, public: list[int], ops: int) -> None:
        issuer = f"http://127.0.0.1:{public[0]}"
        members: Any = configuration_of(self._folder, issuer, self.upstream.issuer)
        members["listeners"]["public"]["port"] = public[number]
        members["listeners"]["internal"]["port"] = self._internal[number]
        members["listeners"]["ops"]["port"] = ops
        password = str(self._postgresql.password_file)
        members["storage"] = {"url": url, "passwordFile": password, "replicas": 2}
        members["limits"] = {
            "releasesPerWorkloadPerSecond": 100_000,
            "failedTokensPerWorkloadPerMinute": 100_000,
            "verificationsPerWorkloadPerSecond": 100_000,
        }
        (self._folder / f"replica-{number}.yaml").write_text(yaml.safe_dump(members))

    def _sidecar(self, number: int, ops: int) -> Child:
        environment = {
            "TOKENWARD_AUTHSERVER_URL": f"https://127.0.0.1:{self._internal[number]}",
            "TOKENWARD_AUTHSERVER_CA_FILE": str(self._folder / "ca.pem"),
            "TOKENWARD_CREDENTIAL_DIR": str(self._folder / "notes"),
            "TOKENWARD_SPIFFE_ID": _NOTES_ID,
            "TOKENWARD_RESOURCE": NOTES,
            "TOKENWARD_ISSUER": self._issuer,
            "TOKENWARD_PORT": str(self._sidecar_ports[number]),
            "TOKENWARD_OPS_PORT": str(ops),
        }
        return Child(f"sidecar-{number}", self._folder / f"s{number}", "sidecar", env=environment)

    async def _signed_in(self, number: int) -> Held:
        """A sign-in as it is stored; the upstream's pages are not what is tested here."""
        given, now = self.upstream.grants.grant(USERS["alice"]), int(clock.wall())
        kept = UpstreamTokens(given.access_token, given.refresh_token, None, now, now + LIFETIME)
        grant = Grant("acme", self.upstream.issuer, f"user-{number}", kept)
        session, _ = await self._store.sign_in(
            grant, created_at=now, expires_at=now + 86400, resource=NOTES, owner=OWNER
        )
        jwt = self._tokens.mint(session, jti=new_handle(), now=now)
        return Held(number, session, jwt, id(given.grant))

    # Faults.

    async def _rounds_of_faults(self) -> None:
        traffic = [asyncio.create_task(self._traffic(n)) for n in range(self._sessions)]
        faults = [self._kill_at_a_step] * 6 + [
            self._kill_at_random, self._stop_postgresql, self._crash_postgresql,
            self._partition, self._bad_mood, self._bad_mood, self._move_clocks,
            self._restart_everything,
        ]  # fmt: skip
        await asyncio.sleep(3)
        begun = time.monotonic()
        try:
            while self.refreshes < self._rounds and time.monotonic() - begun < 600:
                for task in traffic:
                    if task.done():
                        task.result()
                await self.dice.choice(faults)()
                await asyncio.sleep(self.dice.uniform(0.2, 1.5))
            await self._calm()
            # Longer than a claim is waited for: whoever was hurt is told or served by now.
            await asyncio.sleep(70)
        finally:
            self._over.set()
            await asyncio.gather(*traffic)

    async def _quiet(self) -> None:
        """After the faults every session is served again."""
        self._over.clear()
        async with self._caller("notes") as http:
            for held in self._held:
                status, _ = await self._exchange(http, 0, held.jwt)
                if status not in (200, 400):
                    self.tally.violations.append(f"session {held.number} answers {status} at last")

    async def _calm(self) -> None:
        self.moods.mood = None
        for child in self._replicas:
            (child.folder / "step").unlink(missing_ok=True)
        await self._revive()

    async def _kill_at_a_step(self) -> None:
        child, step = self.dice.choice(self._replicas), self.dice.choice(STEPS)
        (child.folder / "step").write_text(step)
        for _ in range(60):
            await asyncio.sleep(0.05)
            if not child.running:
                self.tally.faults[f"killed {step}"] += 1
                break
        (child.folder / "step").unlink(missing_ok=True)
        await self._revive()

    async def _kill_at_random(self) -> None:
        await self.dice.choice(self._replicas).end()
        self.tally.faults["killed at a random moment"] += 1
        await self._revive()

    async def _stop_postgresql(self) -> None:
        await self._outage(self._postgresql.stop, "PostgreSQL stopped")

    async def _crash_postgresql(self) -> None:
        await self._outage(self._postgresql.kill, "PostgreSQL killed")

    async def _outage(self, end: Any, what: str) -> None:
        await asyncio.to_thread(end)
        self.tally.faults[what] += 1
        await asyncio.sleep(self.dice.uniform(0.5, 3))
        await asyncio.to_thread(self._postgresql.start)

    async def _partition(self) -> None:
        await self._gate.shut()
        self.tally.faults["upstream not reachable"] += 1
        await asyncio.sleep(self.dice.uniform(1, 4))
        await self._gate.open()

    async def _bad_mood(self) -> None:
        self.moods.mood = self.dice.choice(("refuses", "breaks off before", "breaks off after"))
        self.tally.faults[f"upstream {self.moods.mood}"] += 1
        await asyncio.sleep(self.dice.uniform(0.5, 1.5))
        self.moods.mood = None

    async def _move_clocks(self) -> None:
        for child in self._replicas:
            (child.folder / "clock").write_text(str(round(self.dice.uniform(-0.5, 0.5), 2)))
        self.tally.faults["clocks moved"] += 1

    async def _restart_everything(self) -> None:
        for child in (*self._replicas, *self._sidecars):
            await child.end()
        await asyncio.to_thread(self._postgresql.stop)
        await asyncio.to_thread(self._postgresql.start)
        self.tally.faults["everything restarted"] += 1
        await self._revive()
        for child in self._sidecars:
            await child.start()

    async def _revive(self) -> None:
        """Start dead replicas again, after noting whom their deaths may have cost what."""
        for child in self._replicas:
            if not child.running:
                hurt = child.outstanding()
                for held in self._held:
                    if (step := hurt.get(held.session.user_id)) is not None:
                        taken = len(self.moods.refreshed_at.get(held.grant, ()))
                        held.cause = (f"the process was {step}", taken)
                await child.start()

    # Traffic.

    async def _traffic(self, number: int) -> None:
        dice = random.Random(self.dice.random())
        async with self._caller("notes") as own, self._caller("tasks") as foreign:
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

    def _caller(self, name: str) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self._folder / "ca.pem"))
        context.load_cert_chain(self._folder / name / "tls.crt", self._folder / name / "tls.key")
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), timeout=aiohttp.ClientTimeout(total=30)
        )

    async def _exchange(
        self, http: aiohttp.ClientSession, replica: int, jwt: str
    ) -> tuple[int, dict[str, Any]]:
        fields = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": jwt,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        url = f"https://127.0.0.1:{self._internal[replica]}/internal/token-exchange"
        try:
            async with http.post(url, data=fields) as answer:
                return answer.status, await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, {}

    async def _ask_directly(self, http: aiohttp.ClientSession, replica: int, held: Held) -> None:
        asked = clock.wall()
        self._judge(held, asked, *await self._exchange(http, replica, held.jwt), door="direct")

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
        status, body = await self._exchange(http, replica, held.jwt)
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
        found = self.upstream.grants._access_tokens.get(token)
        if found is None:
            self.tally.violations.append("a token that the upstream never gave")
        elif id(found.grant) != held.grant and held is self._held[held.number]:
            self.tally.violations.append("a token of somebody else")
        elif asked > found.expires_at + 1:
            self.tally.violations.append(f"a token expired {asked - found.expires_at:.1f} s ago")

    async def _sign_in_again_if_lost(self, number: int) -> None:
        held = self._held[number]
        if held.lost_since is None:
            return
        taken, cause = len(self.moods.refreshed_at.get(held.grant, ())), None
        for what, taken_then in filter(None, (self.moods.broken_off.get(held.grant), held.cause)):
            # The call that was under way may have been taken since; one more means it survived.
            if taken <= taken_then + 1:
                cause = what
        if cause is None:
            self.tally.violations.append(f"session {number} lost its connection for no reason")
        self.tally.losses[cause or "no reason"] += 1
        try:
            self._held[number] = await self._signed_in(number)
        except StorageUnavailable:
            return

    def check_refreshes(self) -> None:
        """What the upstream saw in the whole run."""
        for token, times in self.moods.taken.items():
            if times > 1:
                self.tally.violations.append(f"a refresh token was taken {times} times")
            if self.moods.presented[token] < times:
                self.tally.violations.append(f"uncounted presentation of {token[:4]}")
        reuses = sum(counts.reuse_detections for counts in self.upstream.grants.counts.values())
        # Each ends one grant, whose answer had been lost: nobody could have used it any more.
        if reuses > sum(self.tally.losses.values()):
            self.tally.violations.append("a spent refresh token was presented without a loss")
        for times_of_one in self.moods.refreshed_at.values():
            for before, after in pairwise(times_of_one):
                if after - before < _EARLIEST_NEXT:
                    self.tally.violations.append(
                        f"two refreshes of one expiry, {after - before:.2f} s apart"
                    )
