"""A NetworkPolicy closes the app's own port behind the gateway, where a server asks for it."""

import json
from typing import Any

import pytest

from controller.api.kinds import MCP_SERVER_AUTH, NETWORK_POLICY, POD, SECRET, Kind
from controller.api.objects import Key
from controller.api.server_auth import ServerAuth
from controller.cluster import ApiError
from controller.reconcile import network_policy
from controller.world import slim_pod
from tests.controller.running import NOTES, Site, running
from tests.controller.samples import condition, server_object
from tests.support.controller_rights import NETWORK_POLICY_ROLE, granted

POLICY = Key("mcp-servers", "notes-tokenward")
ASKED = {"ports": [8080, 15501]}
LABELS = {"app.kubernetes.io/name": "notes"}


def condition_of(site: Site) -> tuple[str, str]:
    """Status and reason of NetworkPolicyReady; empty where there is no such condition."""
    found = site.status().get("conditions", ())
    return next(
        ((one["status"], one["reason"]) for one in found if one["type"] == network_policy.TYPE),
        ("", ""),
    )


def message(site: Site) -> str:
    found = site.status().get("conditions", ())
    return next((str(one["message"]) for one in found if one["type"] == network_policy.TYPE), "")


def site_with(**asked: Any) -> Site:
    site = Site()
    site.put_auth_server()
    site.put_server(networkPolicy={**ASKED, **asked})
    return site


def injected_pod(
    name: str, labels: dict[str, str], gateway: str = "8080:8000", policy: bool = True
) -> dict[str, Any]:
    env = [{"name": "TOKENWARD_GATEWAY", "value": gateway}]
    if policy:
        env.append({"name": "TOKENWARD_GATEWAY_APP_PORT", "value": "network-policy"})
    meta = {
        "name": name,
        "namespace": "mcp-servers",
        "labels": {"tokenward.dev/injected": "true", **labels},
        "annotations": {"tokenward.dev/status": json.dumps({"server": "notes"})},
    }
    sidecar = {"name": "tokenward-sidecar", "image": "sidecar:1", "env": env}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta,
            "spec": {"initContainers": [sidecar], "containers": [{"name": "app"}]}}  # fmt: skip


async def test_the_policy_leaves_open_what_was_asked_for_and_nothing_else() -> None:
    site = site_with()
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        assert condition_of(site) == ("True", "AppPortClosed")
        policy = site.api.found(NETWORK_POLICY, POLICY)
        assert policy["spec"] == {
            "podSelector": {"matchLabels": {**LABELS, "tokenward.dev/injected": "true"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"protocol": "TCP", "port": 8080}, {"protocol": "TCP", "port": 15501}]}
            ],
        }
        (owner,) = policy["metadata"]["ownerReferences"]
        assert owner["uid"] == site.api.found(MCP_SERVER_AUTH, NOTES)["metadata"]["uid"]
        assert (owner["kind"], owner["controller"]) == ("MCPServerAuth", True)
        await site.quiet()
        site.api.writes.clear()
        site.put_server(networkPolicy=ASKED, scopes=["mcp"])
        await site.quiet()
        assert site.api.writes["NetworkPolicy"] == 0


async def test_without_the_wish_nothing_is_made_and_nothing_asked() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        await site.quiet()
    assert condition_of(site) == ("", "")
    asked = {key.namespace for _, kind, key in site.api.calls if kind == "NetworkPolicy"}
    assert "mcp-servers" not in asked


async def test_what_is_deleted_or_edited_by_hand_is_put_back() -> None:
    site = site_with()
    async with running(site):
        await site.until(lambda: condition_of(site)[0] == "True")
        site.api.remove(NETWORK_POLICY, POLICY)
        await site.until(lambda: (NETWORK_POLICY, POLICY) in site.api.objects)
        good = site.api.found(NETWORK_POLICY, POLICY)
        site.api.put({**good, "spec": {**good["spec"], "ingress": [{}]}})
        await site.until(lambda: site.api.found(NETWORK_POLICY, POLICY)["spec"]["ingress"] != [{}])


async def test_the_policy_goes_with_the_wish() -> None:
    site = site_with()
    async with running(site):
        await site.until(lambda: condition_of(site)[0] == "True")
        site.put_server()
        await site.until(lambda: (NETWORK_POLICY, POLICY) not in site.api.objects)
        await site.until(lambda: condition_of(site) == ("", ""))


async def test_a_new_leader_removes_what_the_one_before_had_made() -> None:
    site = site_with()
    async with running(site):
        await site.until(lambda: condition_of(site)[0] == "True")
    site.put_server()
    async with running(site, "two"):
        await site.until(lambda: (NETWORK_POLICY, POLICY) not in site.api.objects)


async def test_a_policy_of_somebody_else_is_left_alone() -> None:
    theirs = {
        "apiVersion": NETWORK_POLICY.api_version,
        "kind": NETWORK_POLICY.kind,
        "metadata": {"name": POLICY.name, "namespace": POLICY.namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    site = site_with()
    site.api.put(theirs)
    async with running(site):
        await site.until(lambda: condition_of(site) == ("False", "NetworkPolicyNotOurs"))
        assert not site.is_so("Ready", "True")
        assert site.api.found(NETWORK_POLICY, POLICY)["spec"] == theirs["spec"]
        site.put_server()
        await site.until(lambda: site.is_so("Ready", "True"))
        await site.quiet()
    assert site.api.found(NETWORK_POLICY, POLICY)["spec"] == theirs["spec"]


async def test_without_the_right_the_status_says_what_to_apply() -> None:
    site = site_with()

    def closed(verb: str, kind: Kind, key: Key) -> None:
        if kind == NETWORK_POLICY and key.namespace == "mcp-servers":
            raise ApiError(403, "Forbidden", "")

    site.api.refuse = closed
    async with running(site):
        await site.until(lambda: condition_of(site) == ("False", "NamespaceNotPrepared"))
        assert "-k manifests/tenant/network-policy" in message(site)
        assert not site.is_so("Ready", "True")
        assert (SECRET, POLICY) in site.api.objects  # everything else goes on
        site.api.refuse = lambda *_: None
        site.put_server(networkPolicy=ASKED, scopes=["mcp"])  # or a minute later, by itself
        await site.until(lambda: condition_of(site)[0] == "True")


async def test_a_server_that_is_not_accepted_gets_none() -> None:
    site = Site()
    site.put_auth_server(tenants=[])
    site.put_server(networkPolicy=ASKED)
    async with running(site):
        await site.until(lambda: condition_of(site) == ("False", "NotAccepted"))
        await site.quiet()
    assert (NETWORK_POLICY, POLICY) not in site.api.objects


@pytest.mark.parametrize(
    ("pod", "left_open"),
    [
        (injected_pod("p", LABELS), False),
        (injected_pod("p", {"app.kubernetes.io/name": "other"}), True),
        (injected_pod("p", {}), True),
        (injected_pod("p", LABELS, gateway="9090:8080"), True),
        (injected_pod("p", {}, policy=False), False),
    ],
    ids=["selected", "other label", "no label", "target is listed", "gateway looks by itself"],
)
def test_a_pod_whose_port_the_policy_misses_is_named(pod: dict[str, Any], left_open: bool) -> None:
    server = ServerAuth.of(server_object("notes", networkPolicy=ASKED))
    assert server.network_policy is not None
    ports = server.network_policy
    policy = network_policy.wanted(server, ports)
    found = network_policy.judge(server, ports, policy, [slim_pod(pod)])
    assert found.holds is not left_open
    assert ("in 1 pods, such as p:" in found.message) is left_open


async def test_a_pod_is_named_until_it_is_mended_or_has_ended() -> None:
    site = site_with()
    async with running(site):
        site.api.put(injected_pod("p", {}))
        await site.until(lambda: condition_of(site) == ("False", "AppPortOpen"))
        await site.until(lambda: condition(site.status(), "Ready")[1] == "AppPortOpen")
        site.api.put(injected_pod("p", LABELS))
        await site.until(lambda: condition_of(site) == ("True", "AppPortClosed"))
        ended = injected_pod("q", {})
        site.api.put({**ended, "status": {"phase": "Succeeded"}})
        await site.until(lambda: site.status().get("injectedPods") == 2)
        assert condition_of(site) == ("True", "AppPortClosed")
        site.api.remove(POD, Key("mcp-servers", "p"))
        await site.until(lambda: site.status().get("injectedPods") == 1)


def test_a_policy_never_selects_pods_without_a_sidecar_and_never_opens_all_ports() -> None:
    """The API server's schema refuses both; an object of an older schema may have them."""
    marks = {"a": "b", "tokenward.dev/injected": "false"}
    made = server_object("notes", networkPolicy={"matchLabels": marks})
    server = ServerAuth.of(made)
    assert server.network_policy is not None
    spec = network_policy.wanted(server, server.network_policy)["spec"]
    assert spec["podSelector"]["matchLabels"] == {"a": "b", "tokenward.dev/injected": "true"}
    assert spec["ingress"] == []


async def test_the_role_that_the_operator_binds_has_the_rights_in_use_and_no_others() -> None:
    site = site_with()
    async with running(site):
        await site.until(lambda: condition_of(site)[0] == "True")
        site.put_server(networkPolicy={"ports": [8081]})
        await site.until(
            lambda: "8081" in str(site.api.found(NETWORK_POLICY, POLICY)["spec"]["ingress"])
        )
        site.put_server()
        await site.until(lambda: (NETWORK_POLICY, POLICY) not in site.api.objects)
        await site.until(lambda: site.is_so("Ready", "True"))
    verbs = {
        {"apply": "patch"}.get(verb, verb)
        for verb, kind, key in site.api.calls
        if kind == "NetworkPolicy" and key.namespace == "mcp-servers"
    }
    assert {(r[1], r[2]) for r in granted([NETWORK_POLICY_ROLE])} == {
        ("networking.k8s.io", "networkpolicies")
    }
    assert verbs == {right[3] for right in granted([NETWORK_POLICY_ROLE])}
