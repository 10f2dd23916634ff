"""A hand-written installation passes to the controller, and nobody is signed out.

The steps are those of docs/how-to/run-the-controller.md. The authserver is the real one; its
files are what the controller renders.
"""

import base64
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from controller.api.kinds import CONFIG_MAP, DEPLOYMENT, SECRET
from controller.api.objects import Key
from tests.controller.running import MAIN, Site, running
from tests.controller.samples import SYSTEM, server_object, tenant
from tests.support.deployment import NOTES, TASKS, TRUST_DOMAIN, Deployment, SignedIn, deployed
from tests.support.pod_volumes import localised, mount
from tests.support.workloads import DENIED, NOTES_SERVER, TASKS_SERVER, verdict

# What is read at a start only stays as it was: these paths and addresses are the host's.
_RELOADED = ("encryptionKeys", "signingKeys", "upstreams", "resourcesDir", "allowedWorkloads")
_URLS = {"notes": NOTES, "tasks": TASKS}


def put_secret(site: Site, name: str, files: Mapping[str, Path]) -> None:
    data = {key: base64.b64encode(file.read_bytes()).decode() for key, file in files.items()}
    site.put_secret(name, data)


def put_objects(site: Site, world: Deployment, *adopted: str) -> None:
    """The Secrets of the old installation, its settings in one object, and its map in others."""
    put_secret(site, "encryption", {"k1": world.folder / "k1"})
    put_secret(site, "signing", {"s1": world.folder / "signing.pem"})
    put_secret(site, "acme", {"secret": world.folder / "upstream-secret"})
    given = yaml.safe_load((world.folder / "authserver.yaml").read_text())
    upstream = {k: v for k, v in given["upstreams"][0].items() if k != "clientSecretFile"}
    reference = {"clientSecretRef": {"name": "acme", "key": "secret"}}
    site.put_auth_server(
        issuer=given["issuer"],
        trustDomain=TRUST_DOMAIN,
        upstreams=[{**upstream, **reference}],
        tenants=[tenant(resources=list(_URLS.values()), upstreams=["acme"])],
        keys={
            "encryptionSecretRef": {"name": "encryption"},
            "signingSecretRef": {"name": "signing"},
            "signingRotation": "2160h",
        },
        adoptions=[{"resource": _URLS[one], "namespace": "mcp-servers"} for one in adopted],
    )
    for name, url in _URLS.items():
        made = server_object(name, resource=url, upstreams=[{"name": "acme"}], scopes=["mcp"])
        del made["metadata"]["uid"], made["metadata"]["generation"]
        made["metadata"]["annotations"] = {"tokenward.dev/adopt": url}
        site.api.put(made)


def rendered(site: Site, folder: Path) -> dict[str, Any]:
    """The files of the controller's pod, below `folder`; the members that are reloaded."""
    deployment = site.api.found(DEPLOYMENT, MAIN)
    kinds = {"Secret": SECRET, "ConfigMap": CONFIG_MAP}

    def find(kind: str, name: str) -> Mapping[str, Any] | None:
        return site.api.objects.get((kinds[kind], Key(SYSTEM, name)))

    shutil.rmtree(folder, ignore_errors=True)
    mount(deployment["spec"]["template"]["spec"], find, folder)
    text = localised((folder / "etc/tokenward/authserver.yaml").read_text(), folder, "127.0.0.1")
    members = yaml.safe_load(text)
    return {name: members[name] for name in _RELOADED} | {"resources": []}


async def take_over(world: Deployment, *adopted: str) -> Site:
    """All the steps of the how-to; the authserver runs on the controller's files afterwards."""
    site = Site()
    put_objects(site, world, *adopted)
    keys = [Key("mcp-servers", name) for name in _URLS]
    async with running(site):
        await site.until(lambda: all(site.is_so("Ready", "True", key) for key in keys))
        await site.quiet()
    await world.reconfigure(**rendered(site, world.folder / "pod"))
    await world.server.housekeeping.round()
    return site


async def is_served(world: Deployment, workload: str, user: SignedIn) -> bool:
    return (await world.exchange(workload, user.access_token)).status == 200


async def test_nobody_is_signed_out(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        users = [await world.signed_in(name) for name in ("alice", "bob")]
        assert all([await is_served(world, NOTES_SERVER, one) for one in users])
        await take_over(world, "notes", "tasks")
        assert all([await is_served(world, NOTES_SERVER, one) for one in users])
        renewed = await world.refresh(users[0].client_id, users[0].refresh_token)
        assert renewed.status == 200
        world.clock.advance(600)
        await world.server.housekeeping.round()
        renewed = await world.refresh(users[0].client_id, renewed.json()["refresh_token"])
        assert renewed.status == 200
        jwt = renewed.json()["access_token"]
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200
        later = await world.refresh(users[1].client_id, users[1].refresh_token)
        assert later.status == 200


async def test_without_the_operators_consent_the_sessions_are_nobodys(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        notes = await world.signed_in()
        tasks = await world.signed_in(resource=TASKS)
        assert await is_served(world, TASKS_SERVER, tasks)
        await take_over(world, "tasks")
        assert await is_served(world, TASKS_SERVER, tasks)
        assert verdict(await world.exchange(NOTES_SERVER, notes.access_token)) == DENIED
        refused = await world.refresh(notes.client_id, notes.refresh_token)
        assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
