"""`resourcesDir`: each file stands for itself, and a broken one costs nobody anything."""

import hashlib
import json
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from chassis import probes
from chassis.process import ConfigurationError
from tests.support.deployment import NOTES, TASKS, Deployment, deployed
from tests.support.workloads import DENIED, NOTES_SERVER, TASKS_SERVER, audited, verdict

FIRST, SECOND = "resources-00.yaml", "resources-01.yaml"


def entry(url: str, workload: str, **more: Any) -> dict[str, Any]:
    namespace, name = workload.split("/")
    owner = {"namespace": namespace, "name": name, "uid": "0b1f", **more}
    return {"resource": url, "workload": owner, "upstreams": ["acme"], "scopes": ["mcp"]}


def put(world: Deployment, file: str, *entries: dict[str, Any]) -> str:
    """Write a file as a kubelet does, in one step; its SHA-256."""
    text = json.dumps({"resources": list(entries)})
    draft = world.folder / "draft"
    draft.write_text(text)
    draft.replace(world.folder / "resources" / file)
    return hashlib.sha256(text.encode()).hexdigest()


async def mapped(world: Deployment, *entries: dict[str, Any]) -> None:
    """The map moves out of the configuration file, into the first file of the folder."""
    (world.folder / "resources").mkdir()
    put(world, FIRST, *entries)
    await world.reconfigure(resources=[], resourcesDir="resources")


async def test_resources_of_a_file_are_served_and_follow_it(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER))
        jwt = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
        put(world, FIRST, entry(NOTES, TASKS_SERVER))
        await world.server.poll_resources()
        assert verdict(await world.exchange(NOTES_SERVER, jwt)) == DENIED
        assert verdict(await world.exchange(TASKS_SERVER, jwt)) == DENIED


@pytest.mark.parametrize(
    "text",
    ["", "resources: [", "resources: 7", '{"resources": [{"resource": "x"}]}', '{"other": []}'],
)
async def test_a_torn_file_keeps_what_was_last_read_of_it(tmp_path: Path, text: str) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER))
        good = dict(world.server.resource_files)
        jwt = (await world.signed_in()).access_token
        (world.folder / "resources" / FIRST).write_text(text)
        second = put(world, SECOND, entry(TASKS, TASKS_SERVER))
        await world.server.poll_resources()
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
        assert world.server.resource_files == good | {SECOND: second}
        # It counts again when it is whole.
        digest = put(world, FIRST)
        await world.server.poll_resources()
        assert world.server.resource_files[FIRST] == digest
        assert verdict(await world.exchange(NOTES_SERVER, jwt)) == DENIED


async def test_a_file_or_a_folder_that_is_gone_keeps_its_resources(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER))
        jwt = (await world.signed_in()).access_token
        (world.folder / "resources" / FIRST).unlink()
        await world.server.poll_resources()
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
        shutil.rmtree(world.folder / "resources")
        await world.server.poll_resources()
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200


async def test_what_cannot_be_used_is_left_out_and_its_file_not_shown(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER))
        assert set(world.server.resource_files) == {FIRST}
        unknown = entry("https://new.example.com/mcp", NOTES_SERVER) | {"upstreams": ["later"]}
        put(world, FIRST, entry(NOTES, NOTES_SERVER), unknown)
        put(world, SECOND, entry(NOTES + "/", TASKS_SERVER))
        await world.server.poll_resources()
        assert world.server.resource_files == {}
        jwt = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200


async def test_a_new_object_inherits_no_session_and_no_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER, uid=""))
        jwt = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
        # Made anew a minute from now: what is there began before it.
        later = datetime.now(UTC) + timedelta(minutes=1)
        put(world, FIRST, entry(NOTES, NOTES_SERVER, uid="", notBefore=later.isoformat()))
        await world.server.poll_resources()
        with audited(caplog) as trail:
            assert verdict(await world.exchange(NOTES_SERVER, jwt)) == DENIED
            assert trail.reason == "certificate_of_a_namesake"
        # A good certificate finds that the session is over.
        earlier = datetime.now(UTC) - timedelta(hours=1)
        put(world, FIRST, entry(NOTES, NOTES_SERVER, uid="", notBefore=earlier.isoformat()))
        await world.server.poll_resources()
        with audited(caplog) as trail:
            assert verdict(await world.exchange(NOTES_SERVER, jwt)) == DENIED
            assert trail.reason == "no_such_session_of_this_token"
        again = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, again)).status == 200


async def remapped(world: Deployment, *entries: dict[str, Any]) -> None:
    put(world, FIRST, *entries)
    await world.server.poll_resources()


async def test_another_object_of_the_name_inherits_no_session_and_no_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER, uid="first"))
        user = await world.signed_in()
        assert (await world.exchange(NOTES_SERVER, user.access_token)).status == 200
        await remapped(world, entry(NOTES, NOTES_SERVER, uid="second"))
        with audited(caplog) as trail:
            assert verdict(await world.exchange(NOTES_SERVER, user.access_token)) == DENIED
            assert trail.reason == "no_such_session_of_this_token"
        refused = await world.refresh(user.client_id, user.refresh_token)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
        # A user who comes again is asked by the upstream again, and the old JWT stays refused.
        again = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, again)).status == 200
        assert verdict(await world.exchange(NOTES_SERVER, user.access_token)) == DENIED


async def test_a_session_that_another_replica_has_not_ended_is_not_served(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER, uid="second"))
        user = await world.signed_in()
        database = sqlite3.connect(tmp_path / "tokenward.db")
        with database:  # as a replica with the map of before stored it
            for table in ("sessions", "connections"):
                database.execute(f"UPDATE {table} SET owner_uid = 'first'")
        database.close()
        assert verdict(await world.exchange(NOTES_SERVER, user.access_token)) == DENIED
        refused = await world.refresh(user.client_id, user.refresh_token)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("former", ["", "old"])
async def test_an_owner_is_adopted_once_and_nobody_is_signed_out(
    tmp_path: Path, former: str
) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER, uid=former))
        user = await world.signed_in()
        adopting = entry(NOTES, NOTES_SERVER, uid="new", adopts=former)
        await remapped(world, adopting)
        assert (await world.exchange(NOTES_SERVER, user.access_token)).status == 200
        # A replica with the map of before serves who signs in now.
        during = (await world.signed_in("bob")).access_token
        await remapped(world, entry(NOTES, NOTES_SERVER, uid=former))
        assert (await world.exchange(NOTES_SERVER, during)).status == 200
        await remapped(world, adopting)
        await world.server.housekeeping.round()
        world.clock.advance(600)
        await world.server.housekeeping.round()
        # The adoption is over: it need not be in the map any more.
        await remapped(world, entry(NOTES, NOTES_SERVER, uid="new"))
        assert (await world.exchange(NOTES_SERVER, user.access_token)).status == 200
        assert (await world.refresh(user.client_id, user.refresh_token)).status == 200
        # A later object of the name adopts nothing of the old one: there is nothing left of it.
        await remapped(world, entry(NOTES, NOTES_SERVER, uid="newer", adopts=former))
        assert verdict(await world.exchange(NOTES_SERVER, user.access_token)) == DENIED


async def test_a_leaf_of_a_deleted_object_is_denied_by_its_serial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        await mapped(world, entry(NOTES, NOTES_SERVER))
        jwt, svid = (await world.signed_in()).access_token, world.svid(NOTES_SERVER)
        assert (await world.exchange_with(world.tls(svid), jwt)).status == 200
        serial = f"{x509.load_pem_x509_certificate(svid.certificate_pem).serial_number:x}"
        denied = {"serial": serial, "until": datetime.now(UTC).isoformat()}
        text = json.dumps(
            {"resources": [entry(NOTES, NOTES_SERVER)], "deniedCertificates": [denied]}
        )
        (world.folder / "resources" / FIRST).write_text(text)
        await world.server.poll_resources()
        with audited(caplog) as trail:
            assert (await world.exchange_with(world.tls(svid), jwt)).status == 403
            assert trail.reason == "certificate_denied"
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200


async def test_a_folder_that_is_not_there_is_a_fault_with_its_path(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        with pytest.raises(ConfigurationError) as refused:
            await world.reconfigure(resourcesDir="elsewhere")
        assert [fault.path for fault in refused.value.faults] == ["resourcesDir"]


def test_the_ops_listener_shows_documents_and_nothing_unasked() -> None:
    documents = {"/resource-map": lambda: {"files": {FIRST: "aa"}}}
    readiness, registry = probes.Readiness(), probes.new_registry()
    shown = probes.answer("GET", "/resource-map", readiness, registry, documents)
    assert (shown.status, json.loads(shown.body)) == (200, {"files": {FIRST: "aa"}})
    assert probes.answer("GET", "/resource-map", readiness, registry).status == 404
