"""Each provider from sign-in to its end, at our outer doors.

The other side is the fake provider that acts by the provider's own pages. What is expected here
follows from that table and not from the preset.
"""

import asyncio
import base64
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from authserver.config.provider_presets import PRESETS
from authserver.config.providers.catalog import PROVIDERS
from demo.upstream.dialects.behaviour import Person
from demo.upstream.dialects.grants import Grant
from demo.upstream.dialects.server import ALICE, BOB, ProviderServer
from demo.upstream.dialects.table import BEHAVIOURS
from tests.fakes.clock import ManualClock
from tests.support.database_file import count
from tests.support.deployment import NOTES, Answer, Deployment, Pkce, deployed
from tests.support.sign_in_steps import ask, consent, query_of

SECRET: Final = "upstream secret canary"
CANARY: Final = "canary of the provider"
EACH = pytest.mark.parametrize("name", BEHAVIOURS)
# Presets whose issuer is the operator's.
ISSUERS: Final = {
    name: f"https://{behaviour.issuer}"
    for name, behaviour in BEHAVIOURS.items()
    if behaviour.issuer
}
# They tell nobody's name, so another upstream has to stand before them.
NAMELESS: Final = ("linear",)
# What names the user in the answers of those that are not found by discovery.
SUBJECTS: Final = {
    "asana": "data.id",
    "atlassian": "account_id",
    "dropbox": "account_id",
    "figma": "id",
    "github-app": "id",
    "github-oauth-app": "id",
    "hubspot": "user_id",
    "notion": "owner.user.id",
    "salesforce": "id",
    "slack": "authed_user.id",
    "zoom": "id",
}
# Those whose users are known within a team, workspace, organisation or tenant only.
GROUPED: Final = ("hubspot", "microsoft-multitenant", "notion", "salesforce", "slack")
# Their pages name no word for a grant that is over: several refusals over minutes count as one.
WORDLESS: Final = ("figma",)


def preset_of(name: str) -> str:
    return name.partition(" ")[0]


def moved(value: Any, base: str) -> Any:
    """A member of the configuration with its addresses at the fake provider."""
    if isinstance(value, str) and value.startswith("https://"):
        return f"{base}/{value.removeprefix('https://')}"
    return value


def upstream_of(name: str, base: str) -> dict[str, Any]:
    """The preset as an operator uses it, with every address of it moved to the fake provider."""
    preset = preset_of(name)
    members = {"issuer": ISSUERS[name]} if name in ISSUERS else {}
    members |= {
        member: value
        for member, value in PRESETS[preset].items()
        if member == "issuer" or member.endswith("Endpoint")
    }
    return {
        "name": "acme",
        "preset": preset,
        "clientId": "tokenward",
        "clientSecretFile": "upstream-secret",
        "scopes": scopes_of(name),
    } | {member: moved(value, base) for member, value in members.items()}


def scopes_of(name: str) -> list[str]:
    """The preset's scopes, and one of those that it knows words for."""
    settings = PRESETS[preset_of(name)]
    scopes = list(settings.get("scopes", ()))
    return scopes or list(settings.get("scopeDescriptions", {}))[:2]


@dataclass
class Signed:
    """A client with its tokens, and the grant behind them at the provider."""

    client_id: str
    jwt: str
    grant: Grant


@dataclass
class Scene:
    """Our authserver, the provider, and one that names users where the provider does not."""

    name: str
    world: Deployment
    provider: ProviderServer
    naming: ProviderServer

    async def sign_in(self, person: Person = ALICE) -> Signed:
        """Sign in with a new client to the end."""
        self.provider.person = self.naming.person = person
        client_id, pkce = str((await self.world.register())["client_id"]), Pkce()
        back = query_of(await self.walked(client_id, pkce))
        assert "code" in back, back
        jwt = (await self.world.redeem(client_id, back["code"], pkce)).json()["access_token"]
        return Signed(client_id, jwt, self.provider.grants.grants[-1])

    async def walked(self, client_id: str, pkce: Pkce) -> str:
        """Where the client is sent in the end; each upstream lets the person in at once."""
        asked = await ask(self.world, self.world.authorize_url(client_id, pkce))
        location = (await consent(self.world, asked)).headers["Location"]
        while location.startswith((self.provider.url, self.naming.url)):
            allowed = await self.world.call("GET", location)
            assert allowed.status == 302, allowed.text
            callback = allowed.headers["Location"]
            returned = await self.world.call("GET", callback, headers={"Cookie": asked.cookie})
            location = returned.headers["Location"]
        return location

    async def exchange(self, signed: Signed, rejected: str | None = None) -> Answer:
        """What the workload is given; `rejected` is an access token that the API refused."""
        more: dict[str, str | None] = {"audience": "acme"}
        if rejected is not None:
            digest = hashlib.sha256(rejected.encode()).digest()
            more["rejected_token_sha256"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return await self.world.exchange("mcp-servers/notes", signed.jwt, **more)

    async def token(self, signed: Signed) -> str:
        return str((await self.exchange(signed)).json()["access_token"])

    async def replaced(self, signed: Signed, token: str) -> Answer:
        """The exchange of a server whose API refused the token, a while after it was made."""
        self.world.clock.advance(61)
        return await self.exchange(signed, rejected=token)

    async def sign_out(self, signed: Signed) -> None:
        """The client's session ends, and with it what we hold."""
        fields = {"token": signed.jwt, "client_id": signed.client_id}
        assert (await self.world.call("POST", "/oauth/revoke", data=fields)).status == 200
        await self.world.server.drain()


@asynccontextmanager
async def scene(folder: Path, name: str, **changes: Any) -> AsyncIterator[Scene]:
    """Everything running; `changes` are members of the upstream's configuration."""
    clock = ManualClock()
    provider = ProviderServer(BEHAVIOURS[name], SECRET, clock)
    naming = ProviderServer(BEHAVIOURS["generic-oidc"], SECRET, clock, prefix="n")
    async with provider.serve(), naming.serve():
        acme = upstream_of(name, provider.url) | changes
        who = upstream_of("generic-oidc", naming.url) | {"name": "who"}
        both = [who, acme] if name in NAMELESS else [acme]
        notes = {
            "resource": NOTES,
            "workload": {"namespace": "mcp-servers", "name": "notes"},
            "upstreams": [one["name"] for one in both],
            "scopes": ["mcp"],
        }
        async with deployed(folder, clock=clock, upstreams=both, resources=[notes]) as world:
            yield Scene(name, world, provider, naming)


def test_each_preset_has_a_behaviour_and_each_behaviour_a_preset() -> None:
    behaved = {preset_of(name) for name in BEHAVIOURS}
    assert behaved == set(PROVIDERS) - {"github"}  # either of GitHub's two
    assert all(behaviour.source.startswith("https://") for behaviour in BEHAVIOURS.values())


@EACH
async def test_a_user_signs_in_and_the_token_is_the_providers(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with scene(tmp_path, name) as s:
        # What a provider adds is kept out of what we store, answer and log.
        s.provider.adds = {"x_canary": CANARY, "x_more": {"email": CANARY}}
        signed = await s.sign_in()
        answer = await s.exchange(signed)
        given = answer.json()
        assert s.provider.accepts(given["access_token"])
        assert signed.grant.person == ALICE
        assert given["token_type"] == "Bearer"
        lifetime = s.provider.behaviour.lifetime
        assert given.get("expires_in") == lifetime
        if "scope" in given:
            assert set(given["scope"].split()) == set(signed.grant.scopes)
        assert CANARY not in answer.text
        assert CANARY.encode() not in s.world.stored_bytes()
        assert CANARY not in caplog.text


@EACH
async def test_a_person_is_one_user_at_every_sign_in_and_no_other_ones(
    tmp_path: Path, name: str
) -> None:
    async with scene(tmp_path, name) as s:
        for person in (ALICE, BOB, ALICE):
            signed = await s.sign_in(person)
            assert signed.grant.person == person
        assert await count(tmp_path, "users") == 2


@EACH
async def test_a_token_is_refreshed_and_again(tmp_path: Path, name: str) -> None:
    async with scene(tmp_path, name) as s:
        signed = await s.sign_in()
        first = await s.token(signed)
        if signed.grant.refresh_token is None:
            answer = await s.replaced(signed, first)
            assert answer.json()["access_token"] == first
            assert not s.provider.behaviour.gives_refresh_token
            return
        for generation in (1, 2):
            held = signed.grant.refresh_token
            before = await s.token(signed)
            answer = await s.replaced(signed, before)
            assert answer.status == 200, answer.text
            assert answer.json()["access_token"] != before
            assert s.provider.accepts(answer.json()["access_token"])
            assert s.provider.grants.presented[-1] == held
            assert len(s.provider.grants.presented) == generation


@EACH
async def test_many_callers_at_one_moment_cost_one_refresh(tmp_path: Path, name: str) -> None:
    async with scene(tmp_path, name) as s:
        signed = await s.sign_in()
        first = await s.token(signed)
        if signed.grant.refresh_token is None:
            pytest.skip("no refresh tokens")
        s.world.clock.advance(61)
        answers = await asyncio.gather(*(s.exchange(signed, rejected=first) for _ in range(4)))
        given = {str(answer.json().get("access_token")) for answer in answers}
        assert len(given) == 1, [answer.text for answer in answers]
        assert s.provider.accepts(given.pop())
        assert len(s.provider.grants.presented) == 1


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@EACH
async def test_of_two_refreshes_of_one_token_the_second_meets_the_providers_rule(
    tmp_path: Path, name: str, later: bool
) -> None:
    """The first is somebody else's: another installation with our client, or a copied database."""
    async with scene(tmp_path, name) as s:
        behaviour = s.provider.behaviour
        signed = await s.sign_in()
        held, first = signed.grant.refresh_token, await s.token(signed)
        if held is None:
            pytest.skip("no refresh tokens")
        s.world.clock.advance(61)
        s.provider.grants.refresh(held)
        if later:
            s.world.clock.advance(610)
        again = await s.exchange(signed, rejected=first)
        taken = not behaviour.rotates or behaviour.spent_lives > (610 if later else 0)
        assert s.provider.grants.presented == [held, held]
        assert signed.grant.ended is (not taken and behaviour.reuse_ends_grant)
        if taken:
            assert s.provider.accepts(again.json()["access_token"]), again.text
        else:
            assert again.status == 400, again.text
            assert again.json()["error"] == "invalid_grant"
            assert "connect_url" in again.json()


@EACH
async def test_a_refresh_whose_answer_was_lost_is_repeated_where_that_can_help(
    tmp_path: Path, name: str
) -> None:
    async with scene(tmp_path, name) as s:
        behaviour = s.provider.behaviour
        signed = await s.sign_in()
        held, first = signed.grant.refresh_token, await s.token(signed)
        if held is None:
            pytest.skip("no refresh tokens")
        s.provider.loses_answers = True
        # Where one reuse may end all that the user granted, nothing is presented again.
        reuse_costs_all = behaviour.revocation_ends == "person" and not PRESETS[
            preset_of(name)
        ].get("repeatUncertainRefresh")
        repeats = not behaviour.rotates or not reuse_costs_all
        lost = await s.replaced(signed, first)
        assert lost.status == (503 if repeats else 400), lost.text
        s.provider.loses_answers = False
        again = await s.replaced(signed, first)
        assert s.provider.grants.presented == [held, held][: 1 + repeats]
        if repeats and (not behaviour.rotates or behaviour.spent_lives > 61):
            assert s.provider.accepts(again.json()["access_token"]), again.text
        else:
            assert again.json()["error"] == "invalid_grant", again.text


@EACH
async def test_the_last_session_revokes_what_the_provider_lets_us_revoke(
    tmp_path: Path, name: str
) -> None:
    async with scene(tmp_path, name) as s:
        signed, other = await s.sign_in(), await s.sign_in(BOB)
        held = (signed.grant.refresh_token, await s.token(signed))
        await s.sign_out(signed)
        behaviour = s.provider.behaviour
        if not behaviour.revocation:
            assert not signed.grant.ended
        elif behaviour.revocation_ends == "token":
            assert signed.grant.refresh_token is None
            assert held[0] is not None
            assert not s.provider.accepts(held[1]), "each of the two was revoked"
        else:
            assert signed.grant.ended
            assert not s.provider.accepts(held[1])
        assert not other.grant.ended
        assert s.provider.accepts(await s.token(other))


@EACH
async def test_a_grant_that_ends_at_the_provider_asks_its_user_again(
    tmp_path: Path, name: str
) -> None:
    async with scene(tmp_path, name) as s:
        signed, other = await s.sign_in(), await s.sign_in(BOB)
        first = await s.token(signed)
        s.provider.grants.end(signed.grant)
        answer = await s.replaced(signed, first)
        for _ in range(12 if name in WORDLESS else 0):
            assert answer.status == 503, answer.text
            answer = await s.replaced(signed, first)
            if answer.status == 400:
                break
        assert answer.status == 400, answer.text
        assert answer.json()["error"] == "invalid_grant"
        assert answer.json()["connect_url"].startswith(f"{s.world.issuer}/connect/")
        assert s.provider.accepts(await s.token(other))


@EACH
async def test_a_wrong_client_secret_costs_no_user_a_grant(tmp_path: Path, name: str) -> None:
    async with scene(tmp_path, name) as s:
        if not s.provider.behaviour.gives_refresh_token:
            pytest.skip("no refresh tokens")
        signed = await s.sign_in()
        first = await s.token(signed)
        s.provider.secret = "another one"
        answer = await s.replaced(signed, first)
        assert (answer.status, answer.json()["error"]) == (503, "temporarily_unavailable")
        s.provider.secret = SECRET
        s.world.clock.advance(120)
        answer = await s.exchange(signed, rejected=first)
        assert s.provider.accepts(answer.json()["access_token"]), answer.text


@pytest.mark.parametrize("what", ["token", "subject"])
@EACH
async def test_a_member_that_is_missing_is_a_fault_with_the_providers_name(
    tmp_path: Path, name: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    preset, member = preset_of(name), "access_token"
    if what == "subject":
        member = SUBJECTS.get(preset, "id_token")
    if what == "subject" and name in NAMELESS:
        pytest.skip("it names nobody")
    async with scene(tmp_path, name) as s:
        in_user = preset == "slack" and what == "token"
        s.provider.leaves_out = f"authed_user.{member}" if in_user else member
        s.provider.adds = {"x_canary": CANARY}
        client_id = str((await s.world.register())["client_id"])
        back = query_of(await s.walked(client_id, Pkce()))
        # An upstream that is only linked keeps nobody from signing in.
        assert back.get("error") == (None if name in NAMELESS else "server_error")
        faults = [
            getattr(record, "fields", {})
            for record in caplog.records
            if getattr(record, "fields", {}).get("upstream") == "acme"
        ]
        assert [fault["member"] for fault in faults if "member" in fault] == [member]
        assert CANARY not in str(back)
        assert CANARY not in caplog.text
        assert await count(tmp_path, "users") == (1 if name in NAMELESS else 0)


@pytest.mark.parametrize("name", GROUPED)
async def test_a_namesake_of_another_group_is_another_user(tmp_path: Path, name: str) -> None:
    async with scene(tmp_path, name) as s:
        for group in ("55", "56", "55"):
            await s.sign_in(replace(ALICE, group=group))
        assert await count(tmp_path, "users") == 2


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"aud": "another client"}, "aud"),
        ({"aud": ["tokenward", "another client"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"exp": 1}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"tid": None}, "tid"),
        ({"sub": ""}, "sub"),
    ],
    ids=str,
)
async def test_an_id_token_that_names_somebody_else_signs_nobody_in(
    tmp_path: Path, change: dict[str, Any], member: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path, "microsoft-multitenant") as s:
        s.provider.adds_claims = change
        client_id = str((await s.world.register())["client_id"])
        assert query_of(await s.walked(client_id, Pkce()))["error"] == "server_error"
        fields = [getattr(record, "fields", {}) for record in caplog.records]
        assert [one["member"] for one in fields if "member" in one] == [member]
        assert await count(tmp_path, "users") == 0


@pytest.mark.parametrize("id_token", ["x", "a.b.c", 5, ""])
async def test_an_unreadable_id_token_signs_nobody_in(tmp_path: Path, id_token: object) -> None:
    async with scene(tmp_path, "microsoft-multitenant") as s:
        s.provider.adds = {"id_token": id_token}
        client_id = str((await s.world.register())["client_id"])
        assert query_of(await s.walked(client_id, Pkce()))["error"] == "server_error"
        assert await count(tmp_path, "users") == 0


async def test_a_revocation_that_slack_did_not_make_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so with status 200."""
    async with scene(tmp_path, "slack") as s:
        signed = await s.sign_in()
        s.provider.grants.forget(signed.grant)
        await s.sign_out(signed)
        said = [getattr(record, "fields", {}).get("reason") for record in caplog.records]
        assert "revocation_refused" in said
