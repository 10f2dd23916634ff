"""A changed configuration takes effect without a restart, whole or not at all."""

import base64
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authserver.config.loader import load
from authserver.config.settings import Settings
from authserver.config.watcher import ConfigWatcher
from tests.support.database_file import sql
from tests.support.deployment import NOTES, TASKS, Deployment, Pkce, deployed
from tests.support.forged_tokens import claims_of, header_of
from tests.support.replicas import second_replica
from tests.support.workloads import DENIED, audited, line, replica, verdict

JWKS = "/.well-known/jwks.json"


def following(world: Deployment) -> ConfigWatcher:
    """What the running process does every two seconds, at once."""
    file = world.folder / "authserver.yaml"
    return ConfigWatcher(file, load(file), world.server.reload, world.server.reloaded)


def write(world: Deployment, **changes: Any) -> None:
    file = world.folder / "authserver.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))


def new_key(world: Deployment, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (world.folder / name).write_bytes(pem)


async def kids(world: Deployment) -> list[str]:
    return [key["kid"] for key in (await world.call("GET", JWKS)).json()["keys"]]


async def test_signing_keys_are_announced_then_sign_then_retire(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        old = await world.signed_in("alice")
        new_key(world, "next.pem")
        write(world, signingKeys=[{"file": "signing.pem"}, {"file": "next.pem", "announced": True}])
        assert await reloading.poll()
        both = await kids(world)
        announced = await world.signed_in("alice")
        assert header_of(announced.access_token)["kid"] == both[0] != both[1]

        write(world, signingKeys=[{"file": "next.pem"}, {"file": "signing.pem"}])
        assert await reloading.poll()
        assert await kids(world) == both[::-1]
        new = await world.signed_in("alice")
        assert header_of(new.access_token)["kid"] == both[1]
        for token in (old, announced, new):
            assert (await world.exchange("mcp-servers/notes", token.access_token)).status == 200

        write(world, signingKeys=[{"file": "next.pem"}])
        assert await reloading.poll()
        gone = await world.exchange("mcp-servers/notes", old.access_token)
        assert (gone.status, gone.json()["error"]) == (400, "invalid_request")
        assert (await world.exchange("mcp-servers/notes", new.access_token)).status == 200


async def test_a_retired_key_vouches_for_nothing_it_signed_later(tmp_path: Path) -> None:
    """R6, with a second replica that still signs with the old key."""
    async with deployed(tmp_path) as world, second_replica(world) as late:
        reloading = following(world)
        new_key(world, "next.pem")
        write(world, signingKeys=[{"file": "next.pem"}, {"file": "signing.pem"}])
        await reloading.poll()
        world.clock.advance(200)
        in_time = await late.signed_in("alice")
        assert (await world.exchange("mcp-servers/notes", in_time.access_token)).status == 200
        world.clock.advance(200)
        too_late = await late.signed_in("alice")
        assert header_of(too_late.access_token)["kid"] == (await kids(world))[1]
        assert (await world.exchange("mcp-servers/notes", too_late.access_token)).status == 400


REPLACED = [{"file": "next.pem"}]
RETIRED = [*REPLACED, {"file": "signing.pem", "retiredAt": "2020-01-01T00:00:00Z"}]
ANNOUNCED = [*REPLACED, {"file": "signing.pem", "announced": True}]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (REPLACED, "jwt_unknown_kid"),
        (RETIRED, "jwt_key_did_not_sign_then"),
        (ANNOUNCED, "jwt_key_did_not_sign_then"),
    ],
    ids=["gone", "retired", "announced"],
)
async def test_a_token_that_is_known_already_is_forgotten_with_its_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keys: list[dict[str, Any]], reason: str
) -> None:
    """R6, on a live connection: having been right a moment ago counts for nothing."""
    async with deployed(tmp_path) as world, line(world) as sidecar:
        reloading = following(world)
        alice = await world.signed_in("alice")
        for _ in range(2):
            assert (await sidecar.exchange(alice.access_token)).status == 200
        new_key(world, "next.pem")
        write(world, signingKeys=keys)
        assert await reloading.poll()
        with audited(caplog) as trail:
            assert verdict(await sidecar.exchange(alice.access_token)) == DENIED
        assert trail.reason == reason
        assert sidecar.connections == 1


async def test_a_retirement_in_the_configuration_counts_after_a_restart(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        alice = await world.signed_in("alice")
        new_key(world, "next.pem")
        for moment, status in (("2100-01-01T00:00:00Z", 200), ("2020-01-01T00:00:00Z", 400)):
            old = {"file": "signing.pem", "retiredAt": moment}
            write(world, signingKeys=[{"file": "next.pem"}, old])
            async with replica(world) as restarted:
                answer = await restarted.exchange("mcp-servers/notes", alice.access_token)
                assert answer.status == status


async def test_a_token_of_a_key_that_is_only_announced_is_refused(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world, second_replica(world) as ahead:
        new_key(world, "next.pem")
        announced = [{"file": "signing.pem"}, {"file": "next.pem", "announced": True}]
        reloading = following(world)
        write(world, signingKeys=announced)
        await reloading.poll()
        write(world, signingKeys=[{"file": "next.pem"}, {"file": "signing.pem"}])
        await ahead.server.reload(load(world.folder / "authserver.yaml"))
        early = await ahead.signed_in("alice")
        assert (await world.exchange("mcp-servers/notes", early.access_token)).status == 400


async def test_resources_and_their_owners_follow_the_file(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        alice = await world.signed_in("alice")
        moved = {
            "resource": NOTES,
            "workload": {"namespace": "mcp-servers", "name": "tasks"},
            "upstreams": ["acme"],
            "scopes": ["mcp", "more"],
        }
        write(world, resources=[moved])
        assert await reloading.poll()
        for workload in ("mcp-servers/notes", "mcp-servers/tasks"):
            denied = await world.exchange(workload, alice.access_token)
            assert denied.status == 400, "the user consented to the old owner"
        client = await world.register()
        gone = world.authorize_url(client["client_id"], Pkce(), resource=TASKS)
        assert (await world.call("GET", gone)).status in (303, 400)
        bob = await world.signed_in("bob", scope=None)
        assert bob.scope == "mcp more"
        assert (await world.exchange("mcp-servers/tasks", bob.access_token)).status == 200


async def test_admission_follows_the_file(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        alice = await world.signed_in("alice")
        write(world, allowedWorkloads={"namespaces": ["others"], "names": ["*"]})
        assert await reloading.poll()
        assert (await world.exchange("mcp-servers/notes", alice.access_token)).status == 403
        write(
            world,
            allowedWorkloads={"namespaces": ["mcp-servers"], "names": ["*"]},
            deniedCertificates={
                "spiffeIds": ["spiffe://example.org/ns/mcp-servers/mcpserver/notes"]
            },
        )
        assert await reloading.poll()
        assert (await world.exchange("mcp-servers/notes", alice.access_token)).status == 403


async def test_an_upstreams_new_secret_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        caplog.set_level("INFO", "tokenward")
        reloading = following(world)
        world.upstream._client = type(world.upstream._client)("tokenward", "rotated secret")
        (tmp_path / "upstream-secret").write_text("rotated secret\n")
        assert await reloading.poll(), "a changed secret file is a change"
        (said,) = [one for one in caplog.records if one.message == "configuration_reloaded"]
        files = [str(tmp_path / "upstream-secret")]
        assert vars(said)["fields"] == {"changed": [], "files": files}
        assert (await world.signed_in("alice")).access_token


async def test_an_upstream_that_is_gone_denies_and_one_that_is_new_serves(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        before = yaml.safe_load((tmp_path / "authserver.yaml").read_text())
        renamed = [entry | {"name": "renamed"} for entry in before["upstreams"]]
        resources = [entry | {"upstreams": ["renamed"]} for entry in before["resources"]]
        write(world, upstreams=renamed, resources=resources)
        assert await reloading.poll()
        world.upstream.redirect_uri = f"{world.issuer}/oauth/callback/renamed"
        alice = await world.signed_in("alice")
        released = await world.exchange("mcp-servers/notes", alice.access_token)
        assert released.json()["upstream"] == "renamed"


async def test_a_new_encryption_key_seals_and_the_old_one_opens(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        alice = await world.signed_in("alice")
        (tmp_path / "k2").write_bytes(base64.b64encode(secrets.token_bytes(32)))
        write(world, encryptionKeys=[{"id": "k2", "file": "k2"}, {"id": "k1", "file": "k1"}])
        assert await reloading.poll()
        bob = await world.signed_in("bob")
        for user in (alice, bob):
            assert (await world.exchange("mcp-servers/notes", user.access_token)).status == 200
        assert b"\x02k2" in world.stored_bytes()


async def test_an_encryption_key_in_use_cannot_be_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        alice = await world.signed_in("alice")
        (tmp_path / "k2").write_bytes(base64.b64encode(secrets.token_bytes(32)))
        write(world, encryptionKeys=[{"id": "k2", "file": "k2"}])
        assert not await reloading.poll()
        (said,) = [record for record in caplog.records if record.message == "configuration_kept"]
        assert vars(said)["fields"]["path"] == "encryptionKeys"
        assert (await world.exchange("mcp-servers/notes", alice.access_token)).status == 200


BAD: dict[str, dict[str, Any]] = {
    "an unknown member": {"unknown": 1},
    "a key that is not there": {"signingKeys": [{"file": "missing.pem"}]},
    "an announced key that should sign": {
        "signingKeys": [{"file": "signing.pem", "announced": True}]
    },
    "no encryption key": {"encryptionKeys": []},
    "an unknown upstream": {"upstreams": []},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
async def test_a_bad_change_keeps_the_last_good_configuration(
    tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        good = (tmp_path / "authserver.yaml").read_text()
        alice, before = await world.signed_in("alice"), await kids(world)
        write(world, **change)
        for _ in range(3):
            assert not await reloading.poll()
        kept = [record for record in caplog.records if record.message == "configuration_kept"]
        assert len(kept) >= 1
        assert len(kept) == len({str(vars(record)["fields"]) for record in kept}), "said once"
        assert await kids(world) == before
        assert (await world.exchange("mcp-servers/notes", alice.access_token)).status == 200
        counted = world.server.registry.get_sample_value
        metric = "tokenward_authserver_config_reloads_total"
        assert counted(metric, {"result": "refused"}) == 1
        (tmp_path / "authserver.yaml").write_text(good + "\n")
        assert await reloading.poll()
        assert counted(metric, {"result": "taken"}) == 1


@pytest.mark.parametrize(
    ("failure", "path", "problem"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "k1"),
            "k1",
            "No such file or directory",
        ),
        (PermissionError("secret canary"), "the file", "cannot be read"),
        (ValueError("secret canary"), "the file", "could not be put into force: ValueError"),
        (KeyError("secret canary"), "the file", "could not be put into force: KeyError"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_keeps_a_change_out_is_said_and_counted_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    path: str,
    problem: str,
) -> None:
    async with deployed(tmp_path) as world:
        file, failing = world.folder / "authserver.yaml", [failure]

        async def apply(settings: Settings) -> None:
            if failing:
                raise failing[0]
            await world.server.reload(settings)

        watcher = ConfigWatcher(file, load(file), apply, world.server.reloaded)
        write(world, allowedWorkloads={"namespaces": ["others"], "names": ["*"]})
        for _ in range(3):
            assert not await watcher.poll()
        (kept,) = [record for record in caplog.records if record.message == "configuration_kept"]
        assert vars(kept)["fields"] == {"path": path, "problem": problem}
        assert "canary" not in caplog.text
        counted = world.server.registry.get_sample_value
        metric = "tokenward_authserver_config_reloads_total"
        assert counted(metric, {"result": "refused"}) == 1
        failing.clear()
        assert await watcher.poll()  # it is tried again without another change
        assert counted(metric, {"result": "taken"}) == 1


def reloads(world: Deployment, result: str) -> float | None:
    name = "tokenward_authserver_config_reloads_total"
    return world.server.registry.get_sample_value(name, {"result": result})


async def test_a_change_is_taken_while_another_process_holds_the_database(tmp_path: Path) -> None:
    """Known keys are looked up, and nothing is written."""
    async with deployed(tmp_path) as world:
        watcher = following(world)
        await world.reconfigure()
        write(world, allowedWorkloads={"namespaces": ["others"], "names": ["*"]})
        with closing(sqlite3.connect(tmp_path / "tokenward.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            assert await watcher.poll()
            holder.execute("ROLLBACK")


async def test_a_change_that_waits_for_the_database_is_not_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        watcher = following(world)
        (tmp_path / "k2").write_bytes(base64.b64encode(secrets.token_bytes(32)))
        write(world, encryptionKeys=[{"id": "k2", "file": "k2"}, {"id": "k1", "file": "k1"}])
        await sql(
            tmp_path,
            "CREATE TRIGGER down BEFORE INSERT ON key_checks BEGIN SELECT RAISE(ABORT, 'x'); END",
        )
        for _ in range(3):
            assert not await watcher.poll()
        assert (reloads(world, "postponed"), reloads(world, "refused")) == (1, 0)
        assert "configuration_kept" not in caplog.messages
        assert caplog.messages.count("reload_postponed") == 1
        await sql(tmp_path, "DROP TRIGGER down")
        assert await watcher.poll()
        assert reloads(world, "taken") == 1


async def test_an_upstream_that_cannot_be_built_leaves_everything_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its secret file goes away between the reading of the configuration and its use."""
    async with deployed(tmp_path) as world:
        file = world.folder / "authserver.yaml"

        async def apply(settings: Settings) -> None:
            (world.folder / "second-secret").unlink(missing_ok=True)
            await world.server.reload(settings)

        watcher = ConfigWatcher(file, load(file), apply, world.server.reloaded)
        alice = await world.signed_in("alice")
        raw = yaml.safe_load(file.read_text())
        second = {"name": "second", "clientSecretFile": "second-secret"}
        (world.folder / "second-secret").write_text("secret")
        new_key(world, "next.pem")
        before = await kids(world)
        write(
            world,
            signingKeys=[{"file": "next.pem"}, {"file": "signing.pem"}],
            resources=[],
            upstreams=[*raw["upstreams"], raw["upstreams"][0] | second],
        )
        assert not await watcher.poll()
        assert "configuration_kept" in caplog.messages
        assert await kids(world) == before
        assert (await world.exchange("mcp-servers/notes", alice.access_token)).status == 200


async def test_half_a_file_is_not_taken(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        text = (tmp_path / "authserver.yaml").read_text()
        (tmp_path / "authserver.yaml").write_text(text[: len(text) // 2])
        assert not await reloading.poll()
        (tmp_path / "authserver.yaml").unlink()
        assert not await reloading.poll()
        assert (await world.signed_in("alice")).scope == "mcp"


async def test_what_needs_a_restart_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        reloading = following(world)
        write(world, lifetimes={"accessToken": "5m"})
        caplog.set_level("INFO", "tokenward")
        assert await reloading.poll()
        (said,) = [record for record in caplog.records if record.message == "restart_needed"]
        assert vars(said)["fields"]["members"] == ["lifetimes"]
        alice = await world.signed_in("alice")
        assert claims_of(alice.access_token)["exp"] - world.clock() == 15 * 60
