"""The whole controller against an API server in memory: what people apply, and what comes of it."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import yaml

from controller.api.kinds import (
    CONFIG_MAP,
    CRD,
    EVENT,
    LEASE,
    MCP_AUTH_SERVER,
    MCP_SERVER_AUTH,
    MUTATING_WEBHOOK,
    POD,
    SECRET,
    SERVICE,
    Kind,
)
from controller.api.objects import Key
from controller.app import Controller
from controller.cluster import ApiError
from controller.issuing import leaves, rotation
from controller.reconcile import resource_map
from controller.start_checks import OldSchema, check_schemas
from tests.controller.running import MAIN, NOTES, Site, running
from tests.controller.samples import SYSTEM, condition, tenant

OTHER = Key("others", "squatter")


async def ready(site: Site) -> None:
    await site.until(lambda: site.is_so("Ready", "True"))


async def test_two_objects_become_ready() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await ready(site)
        await site.until(lambda: condition(site.auth_status(), "Ready") == ("True", "Ready"))
    status = site.status()
    assert [one["type"] for one in status["conditions"]] == [
        "Ready", "Accepted", "Programmed", "CertificateReady",
    ]  # fmt: skip
    assert status["spiffeId"] == "spiffe://cluster.local/ns/mcp-servers/mcpserver/notes"
    assert status["secretName"] == "notes-tokenward"
    assert status["phase"] == "Ready"
    secret = site.api.found(SECRET, Key("mcp-servers", "notes-tokenward"))
    assert leaves.read(rotation.decoded(secret)) is not None
    entry = site.map()["https://notes.mcp.example.com/mcp"]
    uid = site.api.found(MCP_SERVER_AUTH, NOTES)["metadata"]["uid"]
    assert entry["workload"] == {
        "namespace": "mcp-servers", "name": "notes", "uid": uid,
        "notBefore": "2026-11-28T11:55:00Z",
    }  # fmt: skip
    assert site.auth_status()["servers"] == 1


async def test_a_quiet_cluster_is_written_nothing_even_after_a_restart() -> None:
    site = Site()
    site.put_auth_server()
    for number in range(10):
        site.put_server(f"s{number}", resource=f"https://s{number}.mcp.example.com/mcp")
    keys = [Key("mcp-servers", f"s{number}") for number in range(10)]
    async with running(site):
        await site.until(lambda: all(site.is_so("Ready", "True", key) for key in keys))
        await site.quiet()
    before = Counter(site.api.writes)
    async with running(site, "two"):
        await site.until(
            lambda: site.api.found(LEASE, LEASE_KEY)["spec"]["holderIdentity"] == "two"
        )
        await site.quiet()
    written = Counter(site.api.writes) - before
    assert set(written) <= {"Lease"}


LEASE_KEY = Key(SYSTEM, "tokenward-controller")


async def test_one_changed_object_costs_few_calls() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await ready(site)
        await site.quiet()
        site.api.calls.clear()
        site.put_server(scopes=["mcp"])
        await site.until(lambda: site.status().get("observedGeneration") == 2)
        await site.until(lambda: site.is_so("Ready", "True"))
        await site.quiet()
    ignored = ("Lease", "Event", "Pod")  # the pod is touched so that its kubelet looks at once
    calls = [(verb, kind) for verb, kind, _ in site.api.calls if kind not in ignored]
    assert len(calls) <= 4, calls


async def test_a_deleted_certificate_is_made_anew_when_its_object_changes() -> None:
    site, secret = Site(), Key("mcp-servers", "notes-tokenward")
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await ready(site)
        site.api.remove(SECRET, secret)
        site.put_server(scopes=["mcp"])
        await site.until(lambda: (SECRET, secret) in site.api.objects)


async def test_a_change_is_programmed_only_when_the_authserver_shows_it() -> None:
    site = Site()
    site.pods.in_step = False
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("CertificateReady", "True"))
        await site.quiet()
        assert condition(site.status(), "Programmed") == ("False", "WaitingForAuthServer")
        site.pods.in_step = True
        await ready(site)
    pod = site.api.found(POD, Key(SYSTEM, "main-0"))
    assert "tokenward.dev/resource-map" in pod["metadata"]["annotations"]


async def test_a_namespace_without_our_role_says_so_and_is_served_once_it_has_it() -> None:
    site = Site()

    def closed(verb: str, kind: Kind, key: Key) -> None:
        if kind == SECRET and key.namespace == "mcp-servers":
            raise ApiError(403, "Forbidden", "")

    site.api.refuse = closed
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Programmed", "True"))
        assert condition(site.status(), "CertificateReady") == ("False", "NamespaceNotPrepared")
        assert "manifests/tenant" in str(site.status()["conditions"])
        site.api.refuse = lambda *_: None
        site.put_server(scopes=["mcp"])  # or a minute later, by itself
        await ready(site)


async def test_the_process_that_wrote_a_certificate_writes_its_renewal_too() -> None:
    """It remembered what it had written without the data, and took each renewal for written."""
    site = Site()
    a_day = {"source": "BuiltIn", "duration": "24h"}
    site.put_auth_server(certificates={"server": a_day, "workloads": a_day})
    site.put_server()
    async with running(site):
        await ready(site)
        workload, internal = leaf(site, NOTES), leaf(site, MAIN, "-internal")
        site.now += timedelta(hours=17)  # past two thirds of 24 hours
        site.put_server(scopes=["mcp"])  # or by itself when the time has come
        site.put_auth_server(certificates={"server": a_day, "workloads": a_day}, replicas=2)
        await site.until(lambda: leaf(site, NOTES) != workload)
        await site.until(lambda: leaf(site, MAIN, "-internal") != internal)


def leaf(site: Site, owner: Key, suffix: str = "-tokenward") -> str:
    secret = site.api.found(SECRET, Key(owner.namespace, owner.name + suffix))
    return str(secret["data"]["tls.crt"])


def soonest_expiry(controller: Controller) -> float:
    """What a scrape reads."""
    [gauge] = controller.metrics.soonest_expiry.collect()
    return gauge.samples[0].value


async def test_a_certificate_that_cannot_be_renewed_stays_in_the_metric() -> None:
    """The alert on certificates that end looks for it; the rights may be what is missing."""
    site = Site()

    def closed(verb: str, kind: Kind, key: Key) -> None:
        if kind == SECRET and key.namespace == "mcp-servers":
            raise ApiError(403, "Forbidden", "")

    site.put_auth_server()
    site.put_server()
    async with running(site) as controller:
        await ready(site)
        ends = soonest_expiry(controller)
        assert ends > 0
        site.api.refuse = closed
        site.put_server(scopes=["mcp"])
        await site.until(lambda: site.is_so("CertificateReady", "False"))
        await site.quiet()
        assert soonest_expiry(controller) == ends
        site.api.remove(MCP_SERVER_AUTH, NOTES)
        await site.until(lambda: soonest_expiry(controller) == 0)


async def test_a_secret_of_somebody_else_is_not_overwritten() -> None:
    site = Site()
    site.put_secret("notes-tokenward", {"mine": "eA=="}, "mcp-servers")
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Programmed", "True"))
    assert condition(site.status(), "CertificateReady") == ("False", "SecretNotOurs")
    found = site.api.found(SECRET, Key("mcp-servers", "notes-tokenward"))
    assert found["data"] == {"mine": "eA=="}


async def test_what_was_edited_by_hand_is_put_back_and_only_our_fields() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await ready(site)
        service = site.api.found(SERVICE, MAIN)
        spoilt: Any = {**service, "spec": {**service["spec"], "selector": {"app": "mine"}}}
        spoilt["metadata"] = {**service["metadata"], "labels": {"theirs": "stays"}}
        site.api.put(spoilt)
        await site.until(lambda: "app" not in site.api.found(SERVICE, MAIN)["spec"]["selector"])
        assert site.api.found(SERVICE, MAIN)["metadata"]["labels"]["theirs"] == "stays"
        for number in range(resource_map.SHARDS):
            site.api.remove(CONFIG_MAP, Key(SYSTEM, resource_map.config_map_name("main", number)))
        await site.until(lambda: len(site.map()) == 1)


async def test_a_deleted_server_leaves_the_map_and_its_resource_is_kept() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server(age=timedelta(hours=1))
    async with running(site):
        await ready(site)
        site.put_server("squatter", "others", resource="https://notes.mcp.example.com/mcp")
        await site.until(lambda: site.is_so("Accepted", "False", OTHER))
        site.api.remove(MCP_SERVER_AUTH, NOTES)
        await site.until(lambda: not site.map())
        await site.until(lambda: bool(site.auth_status().get("reserved")))
        await site.quiet()
        assert condition(site.status(OTHER), "Accepted") == ("False", "Conflict")
        assert SECRET not in {kind for kind, key in site.api.objects if key == NOTES}
        site.put_server()
        await ready(site)
        assert condition(site.status(OTHER), "Accepted") == ("False", "Conflict")


async def test_a_resource_is_reserved_before_the_map_forgets_its_owner() -> None:
    """Killed between the two writes, the next leader still knows whose it was."""
    site = Site()
    site.put_auth_server()
    site.put_server(age=timedelta(hours=1))
    async with running(site):
        await ready(site)
    site.put_server("squatter", "others", resource="https://notes.mcp.example.com/mcp")
    site.api.remove(MCP_SERVER_AUTH, NOTES)

    def no_map(verb: str, kind: Kind, key: Key) -> None:
        if kind == CONFIG_MAP and verb == "apply":
            raise ApiError(0, "Unreachable", "")

    site.api.refuse = no_map
    async with running(site, "two"):
        await site.until(lambda: bool(site.auth_status().get("reserved")))
        assert len(site.map()) == 1
    site.api.refuse = lambda *_: None
    async with running(site, "three"):
        await site.until(lambda: not site.map())
        await site.until(lambda: site.is_so("Accepted", "False", OTHER))


async def test_a_tenant_that_is_withdrawn_takes_the_entry_along() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await ready(site)
        site.put_auth_server(tenants=[])
        await site.until(lambda: site.is_so("Accepted", "False"))
        await site.until(lambda: not site.map())
    assert condition(site.status(), "Accepted") == ("False", "NotPermitted")
    assert condition(site.status(), "Ready") == ("False", "NotPermitted")


async def test_a_namespace_that_gets_a_label_joins_the_tenant() -> None:
    site = Site()
    site.put_auth_server(tenants=[tenant(namespaces={"matchLabels": {"team": "tools"}})])
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Accepted", "False"))
        site.put_namespace("mcp-servers", team="tools")
        await ready(site)


async def test_a_paused_object_is_left_alone() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    found = site.api.found(MCP_SERVER_AUTH, NOTES)
    found["metadata"]["annotations"] = {"tokenward.dev/paused": "true"}
    async with running(site):
        await site.until(lambda: condition(site.auth_status(), "Available")[0] == "True"
                         if site.auth_status().get("conditions") else False)  # fmt: skip
        await site.quiet()
    assert site.status() == {}


async def test_an_auth_server_in_another_namespace_is_refused_by_its_status() -> None:
    site = Site()
    site.put_auth_server()
    stray = dict(site.api.found(MCP_AUTH_SERVER, MAIN))
    stray["metadata"] = {"name": "main", "namespace": "others"}
    site.api.put(stray)
    key = Key("others", "main")
    async with running(site):
        await site.until(lambda: "status" in site.api.found(MCP_AUTH_SERVER, key))
    status = site.api.found(MCP_AUTH_SERVER, key)["status"]
    assert condition(status, "Accepted") == ("False", "NotPermitted")
    assert not [k for kind, k in site.api.objects if k.namespace == "others" and kind == SECRET]


async def test_the_webhook_gets_its_file_certificate_and_bundle() -> None:
    site = Site()
    configuration = {
        "apiVersion": MUTATING_WEBHOOK.api_version,
        "kind": MUTATING_WEBHOOK.kind,
        "metadata": {"name": "tokenward"},
        "webhooks": [
            {"name": "pods.tokenward.dev", "clientConfig": {"service": {"name": "x"}}},
            {"name": "namespaces.tokenward.dev", "clientConfig": {"service": {"name": "x"}}},
        ],
    }
    site.api.put(configuration)
    site.put_auth_server()
    site.put_server()
    name = Key(SYSTEM, "tokenward-webhook")
    async with running(site):
        await ready(site)

        def servers() -> object:
            found = site.api.objects.get((CONFIG_MAP, name))
            return yaml.safe_load(found["data"]["webhook.yaml"])["servers"] if found else None

        await site.until(lambda: bool(servers()))
        assert servers() == [
            {
                "namespace": "mcp-servers",
                "name": "notes",
                "resource": "https://notes.mcp.example.com/mcp",
            }
        ]
        site.api.remove(MCP_SERVER_AUTH, NOTES)
        await site.until(lambda: servers() == [])
    found = site.api.found(MUTATING_WEBHOOK, Key("", "tokenward"))
    secret = site.api.found(SECRET, Key(SYSTEM, "tokenward-webhook-serving"))
    for one in found["webhooks"]:
        assert one["clientConfig"]["caBundle"] == secret["data"]["ca.crt"]
        assert one["clientConfig"]["service"] == {"name": "x"}


@pytest.mark.parametrize(
    ("kind", "key"),
    [(MCP_SERVER_AUTH, NOTES), (MCP_AUTH_SERVER, MAIN)],
    ids=["server", "auth server"],
)
async def test_a_status_that_is_not_what_it_should_be_is_written_again_at_once(
    kind: Kind, key: Key
) -> None:
    """However it came about: by hand, or by two writes of which the watch showed one late."""
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await ready(site)
        await site.quiet()
        before = site.api.found(kind, key)["status"]
        for wrong in ("False", "Unknown"):
            changed = [one | {"status": wrong} for one in before["conditions"]]
            site.api.set_status(kind, key, before | {"conditions": changed})
            await site.until(lambda: _statuses(site, kind, key) == _statuses_of(before))


def _statuses(site: Site, kind: Kind, key: Key) -> dict[str, str]:
    return _statuses_of(site.api.found(kind, key)["status"])


def _statuses_of(status: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in status["conditions"]}


async def test_two_replicas_do_the_work_once() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site, "one"), running(site, "two"):
        await ready(site)
        await site.quiet()
    events = [o for (kind, _), o in site.api.objects.items() if kind == EVENT]
    issued = [one for one in events if one["reason"] == "CertificateIssued"]
    about = Counter(one["involvedObject"]["name"] for one in issued)
    assert about["notes"] == 1


async def test_a_controller_that_is_killed_anywhere_loses_nothing() -> None:
    """A replica ends without a word after each number of writes; the next one goes on."""
    site = Site()
    site.put_auth_server()
    for number in range(4):
        site.put_server(f"s{number}", resource=f"https://s{number}.mcp.example.com/mcp")
    for writes in range(1, 40):
        await asyncio.sleep(100)  # the dead one's lease is over
        controller = site.controller(f"r{writes}")
        allowed = [writes % 7 + 1]

        def killed(verb: str, kind: Kind, key: Key, left: list[int] = allowed) -> None:
            if verb in ("create", "apply", "patch", "update", "delete") and kind != LEASE:
                if left[0] == 0:
                    raise ConnectionError  # it never comes back from this call
                left[0] -= 1

        site.api.refuse = killed
        task = asyncio.create_task(controller.run())
        for _ in range(300):
            site.run_cluster()
            await asyncio.sleep(0.01)
        site.api.refuse = lambda *_: None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if writes % 10 == 0:
            site.api.remove(MCP_SERVER_AUTH, Key("mcp-servers", f"s{writes // 10 % 4}"))
    await asyncio.sleep(100)
    async with running(site, "last"):
        left = [key for kind, key in site.api.objects if kind == MCP_SERVER_AUTH]
        await site.until(lambda: all(site.is_so("Ready", "True", key) for key in left))
        await site.quiet()
    assert {one["workload"]["name"] for one in site.map().values()} == {k.name for k in left}
    secrets = {key.name for kind, key in site.api.objects if kind == SECRET}
    assert {name for name in secrets if name.endswith("-tokenward")} == {
        f"{key.name}-tokenward" for key in left
    }
    jobs = [key.name for kind, key in site.api.objects if "check" in key.name]
    assert len(set(jobs)) <= 1


@pytest.mark.parametrize("version", [None, "0", "x"])
async def test_an_old_schema_keeps_the_controller_from_starting(version: str | None) -> None:
    site = Site()
    await check_schemas(site.api)  # type: ignore[arg-type]
    found = site.api.found(CRD, Key("", "mcpserverauths.tokenward.dev"))
    found["metadata"]["annotations"] = {"tokenward.dev/schema": version} if version else {}
    with pytest.raises(OldSchema, match="mcpserverauths"):
        await check_schemas(site.api)  # type: ignore[arg-type]


async def test_a_credential_that_is_deleted_or_edited_is_made_anew_at_once() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    name = Key("mcp-servers", "notes-tokenward")

    def credential() -> leaves.Credential | None:
        stored = site.api.objects.get((SECRET, name))
        return leaves.read(rotation.decoded(stored)) if stored is not None else None

    async with running(site):
        await ready(site)
        await site.quiet()
        first = credential()
        site.api.remove(SECRET, name)
        await site.until(lambda: credential() is not None)
        second = credential()
        assert first is not None
        assert second is not None
        assert second.serial != first.serial
        await site.quiet()
        site.api.put({**site.api.found(SECRET, name), "data": {"tls.crt": "eA=="}})
        await site.until(lambda: credential() is not None)
        await site.quiet()
        # All three are known, should the object be deleted.
        listed = [one["serial"] for one in site.status()["certificates"]]
        third = credential()
        assert third is not None
        assert set(listed) == {first.serial, second.serial, third.serial}


async def test_a_secret_of_somebody_else_is_left_alone_although_it_is_not_followed() -> None:
    site = Site()
    site.put_secret("notes-tokenward", {"mine": "eA=="}, "mcp-servers")
    site.put_auth_server()
    site.put_server()
    name = Key("mcp-servers", "notes-tokenward")
    async with running(site):
        await site.until(lambda: site.is_so("CertificateReady", "False"))
        await site.quiet()
        assert condition(site.status(), "CertificateReady") == ("False", "SecretNotOurs")
        assert site.api.found(SECRET, name)["data"] == {"mine": "eA=="}


async def test_a_new_server_costs_a_credential_two_statuses_and_no_look() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await ready(site)
        await site.quiet()
        site.api.calls.clear()
        site.put_server("more", resource="https://more.mcp.example.com/mcp")
        await site.until(lambda: site.is_so("Ready", "True", Key("mcp-servers", "more")))
        await site.quiet()
    of_server = sorted(
        (verb, kind)
        for verb, kind, key in site.api.calls
        if key.name.startswith("more") and kind != "Event"
    )
    assert of_server == [
        ("create", "Secret"), ("patch", "MCPServerAuth"), ("patch", "MCPServerAuth"),
    ]  # fmt: skip
