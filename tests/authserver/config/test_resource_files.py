"""`resourcesDir`: each file stands for itself, and a broken one costs nobody anything."""

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

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
        await mapped(world, entry(NOTES, NOTES_SERVER))
        jwt = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
        # Made anew a minute from now: what is there began before it.
        later = datetime.now(UTC) + timedelta(minutes=1)
        put(world, FIRST, entry(NOTES, NOTES_SERVER, notBefore=later.isoformat()))
        await world.server.poll_resources()
        with audited(caplog) as trail:
            assert verdict(await world.exchange(NOTES_SERVER, jwt)) == DENIED
            assert trail.reason == "certificate_of_a_namesake"
        # A good certificate finds that the session is over.
        earlier = datetime.now(UTC) - timedelta(hours=1)
        put(world, FIRST, entry(NOTES, NOTES_SERVER, notBefore=earlier.isoformat()))
        await world.server.poll_resources()
        with audited(caplog) as trail:
            assert verdict(await world.exchange(NOTES_SERVER, jwt)) == DENIED
            assert trail.reason == "no_such_session_of_this_token"
        again = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, again)).status == 200


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
