"""Pods that began before the webhook was in force are named in the status of their server."""

from typing import Any

import pytest

from controller.api.kinds import EVENT, POD
from controller.api.objects import Key
from controller.reconcile.opted_in import without_sidecar
from tests.controller.running import Site, running

OPTED_IN = {"tokenward.dev/inject": "true"}


def pod(name: str, annotations: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "mcp-servers", "annotations": annotations or {}, **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}}


def owner(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "controller": True}]


@pytest.mark.parametrize(
    ("made", "server"),
    [
        (pod("x", OPTED_IN | {"tokenward.dev/server": "notes"}), "notes"),
        (pod("x", OPTED_IN, labels={"app.kubernetes.io/name": "notes"}), "notes"),
        (
            pod("x", OPTED_IN, labels={"pod-template-hash": "7f"},
                ownerReferences=owner("ReplicaSet", "notes-7f")),
            "notes",
        ),
        (pod("x", OPTED_IN, ownerReferences=owner("StatefulSet", "notes")), "notes"),
        (pod("x", OPTED_IN, ownerReferences=owner("Job", "notes-29384756")), "notes"),
        (pod("notes", OPTED_IN), "notes"),
        (pod("notes"), None),
        (pod("notes", {"tokenward.dev/inject": "false"}), None),
        (pod("notes", OPTED_IN, labels={"tokenward.dev/injected": "true"}), None),
    ],
)  # fmt: skip
def test_a_pod_is_found_by_the_server_it_is_meant_for(
    made: dict[str, Any], server: str | None
) -> None:
    found = without_sidecar([made], None)
    assert found == ({server: [made["metadata"]["name"]]} if server else {})


def test_a_namespace_opts_in_for_pods_that_do_not_opt_out() -> None:
    whole = {"metadata": {"labels": {"tokenward.dev/inject": "enabled"}}}
    made = [pod("notes"), pod("other", {"tokenward.dev/inject": "false"})]
    assert without_sidecar(made, whole) == {"notes": ["notes"]}
    assert without_sidecar(made, {"metadata": {"labels": {"tokenward.dev/inject": "x"}}}) == {}


def events(site: Site) -> list[str]:
    return [
        f"{one['type']} {one['reason']} {one['involvedObject']['name']}"
        for (kind, _), one in site.api.objects.items()
        if kind == EVENT
    ]


def remark(site: Site) -> tuple[str, str]:
    """Status with reason, and message, of Ready."""
    for one in site.status().get("conditions", ()):
        if one["type"] == "Ready":
            return f"{one['status']} {one['reason']}", one["message"]
    return "", ""


async def test_they_are_said_until_they_are_made_anew() -> None:
    site = Site()
    site.put_auth_server()
    for name in ("notes-a", "notes-b"):
        site.api.put(pod(name, OPTED_IN | {"tokenward.dev/server": "notes"}))
    site.api.put(pod("done", OPTED_IN | {"tokenward.dev/server": "notes"}))
    site.api.set_status(POD, Key("mcp-servers", "done"), {"phase": "Succeeded"})
    site.put_server()
    async with running(site):
        await site.until(lambda: remark(site)[0] == "True PodsWithoutSidecar")
        assert "have no sidecar: notes-a, notes-b; delete them" in remark(site)[1]
        await site.until(lambda: "Warning PodsWithoutSidecar notes" in events(site))
    for name in ("notes-a", "notes-b"):
        site.api.remove(POD, Key("mcp-servers", name))
    async with running(site):
        await site.until(lambda: remark(site)[0] == "True Ready")


async def test_a_quiet_cluster_is_not_looked_through_again_and_again() -> None:
    site = Site()
    site.put_auth_server()
    site.api.put(pod("notes-a", OPTED_IN | {"tokenward.dev/server": "notes"}))
    site.put_server()
    async with running(site):
        await site.until(lambda: remark(site)[0] == "True PodsWithoutSidecar")
        await site.quiet()
        lists = [one for one in site.api.calls if one[:2] == ("list", "Pod")]
        # Two informers, and a look for each time that the object's status changed, in bursts.
        assert len([one for one in lists if one[2].namespace == "mcp-servers"]) <= 3
