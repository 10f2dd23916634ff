"""The controller is killed at random moments while objects come and go; nothing is lost or left."""

import json
import os
import random
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.controller import Site, auth_server, controller, kubeconfig_of, server_auth

KILLS = int(os.environ.get("TOKENWARD_TEST_KILLS", "12"))  # noqa: TID251 - how long to go on
SERVERS = 50


@pytest.mark.timeout(3600)
def test_killed_at_random_it_loses_nothing_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    chance = random.Random(20261129)
    kubeconfig = kubeconfig_of(site.system, tmp_path)
    site.system.inside("create", "-f", "-", given=auth_server([site.tenant.namespace]))
    wanted: set[str] = set()
    for _ in range(KILLS):
        with controller(kubeconfig, site.system, tmp_path, kill_after=chance.uniform(0.0, 4.0)):
            for _ in range(max(1, SERVERS * 2 // KILLS)):
                _come_or_go(site, wanted, chance)
        # The dead process is known to be dead here; its successor need not wait for the lease.
        site.system.inside("delete", "lease", "tokenward-controller", "--ignore-not-found")
    with controller(kubeconfig, site.system, tmp_path):
        eventually(lambda: _credentials(site.tenant), lambda names: names == wanted)
        eventually(lambda: _mapped(site), lambda names: names == wanted)
    secrets = site.system.inside("get", "secrets", "-o", "name").split()
    ours = sorted(name for name in secrets if name.startswith("secret/main-"))
    assert ours == [
        "secret/main-encryption", "secret/main-internal", "secret/main-servers-authority",
        "secret/main-signing", "secret/main-workloads-authority",
    ]  # fmt: skip
    assert len(site.system.inside("get", "jobs", "-o", "name").split()) == 1


def _come_or_go(site: Site, wanted: set[str], chance: random.Random) -> None:
    if len(wanted) < SERVERS and (not wanted or chance.random() < 0.65):
        name = f"s{chance.randrange(10**6):06}"
        site.tenant.inside("create", "-f", "-", given=server_auth(name, site.system.namespace))
        wanted.add(name)
    else:
        name = chance.choice(sorted(wanted))
        site.tenant.inside("delete", "msa", name)
        wanted.discard(name)


def _credentials(tenant: Cluster) -> set[str]:
    names = tenant.inside("get", "secrets", "-o", "name").split()
    return {
        one.removeprefix("secret/").removesuffix("-tokenward")
        for one in names
        if one.endswith("-tokenward")
    }


def _mapped(site: Site) -> set[str]:
    found = set()
    for number in range(16):
        shard = site.system.get("configmap", f"main-resources-{number:02}")
        for text in (shard or {}).get("data", {}).values():
            found |= {one["workload"]["name"] for one in _entries(text)}
    return found


def _entries(text: str) -> list[dict[str, dict[str, str]]]:
    entries: list[dict[str, dict[str, str]]] = json.loads(text)["resources"]
    return entries
