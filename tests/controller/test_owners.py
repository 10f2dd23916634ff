"""Whose sessions an object has: its own, those it adopts once, and none of a deleted namesake."""

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from controller.api.auth_server import Adoption, AuthServer
from controller.api.kinds import (
    CONFIG_MAP,
    MCP_AUTH_SERVER,
    MCP_SERVER_AUTH,
    POD_CERTIFICATE_REQUEST,
    SECRET,
)
from controller.api.objects import Key, format_time
from controller.api.server_auth import ServerAuth
from controller.issuing import leaves, rotation
from controller.reconcile import resource_map
from controller.reconcile.index import Index
from tests.controller.pod_requests import REQUEST, answer, put_request
from tests.controller.running import MAIN, NOTES, Site, running
from tests.controller.samples import (
    NOW,
    SYSTEM,
    auth_server,
    auth_server_object,
    server_object,
)

URL = "https://notes.mcp.example.com/mcp"
SHARD = resource_map.config_map_name("main", resource_map.shard_of(NOTES))


def adopting(uid: str = "new", url: str = URL, **changes: Any) -> ServerAuth:
    made = server_object(uid=uid, **changes)
    made["metadata"]["annotations"] = {"tokenward.dev/adopt": url}
    return ServerAuth.of(made)


def confirmed(former: str = "", **changes: Any) -> dict[str, Any]:
    return {"resource": URL, "namespace": "mcp-servers", "former": former, **changes}


def operator(*adoptions: dict[str, Any], adopted: tuple[Adoption, ...] = ()) -> AuthServer:
    made = auth_server_object(adoptions=list(adoptions))
    made["status"] = {"adopted": [vars(one) for one in adopted]}
    return AuthServer.of(made)


@pytest.mark.parametrize("former", ["", "0b1f"])
def test_an_owner_is_adopted_by_the_object_that_asks_and_is_confirmed(former: str) -> None:
    (made,) = resource_map.adoptions(operator(confirmed(former)), [adopting()])
    assert made == Adoption(URL, "mcp-servers", former, "new")
    workload = resource_map.entry(adopting(), [made])["workload"]
    assert workload == {
        "namespace": "mcp-servers", "name": "notes", "uid": "new", "adopts": former,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("server", "adoptions"),
    [
        (adopting(), []),
        (adopting(), [confirmed(namespace="others")]),
        (adopting(), [confirmed(resource="https://other.mcp.example.com/mcp")]),
        (adopting(url="https://other.mcp.example.com/mcp"), [confirmed()]),
        (ServerAuth.of(server_object()), [confirmed()]),
    ],
    ids=["not confirmed", "another namespace", "another resource", "asks for another", "asks not"],
)
def test_nothing_is_adopted_otherwise(server: ServerAuth, adoptions: list[dict[str, Any]]) -> None:
    assert resource_map.adoptions(operator(*adoptions), [server]) == []
    workload = resource_map.entry(server, [])["workload"]
    assert workload["uid"] == server.uid
    assert workload["notBefore"] == "2026-11-28T11:55:00Z"
    assert "adopts" not in workload


def test_an_adoption_is_for_one_object_and_ends_with_the_operators_consent() -> None:
    first = Adoption(URL, "mcp-servers", "", "new")
    main = operator(confirmed(), adopted=(first,))
    assert resource_map.adoptions(main, [adopting("newer")]) == [first]
    assert "adopts" not in resource_map.entry(adopting("newer"), [first])["workload"]
    assert resource_map.adoptions(operator(adopted=(first,)), [adopting()]) == []
    again = operator(confirmed(), confirmed("new"), adopted=(first,))
    assert resource_map.adoptions(again, [adopting("newer")]) == [
        first, Adoption(URL, "mcp-servers", "new", "newer"),
    ]  # fmt: skip


def denied(site: Site) -> dict[str, str]:
    """What the shard in the cluster denies: serials and their ends."""
    (text,) = site.api.found(CONFIG_MAP, Key(SYSTEM, SHARD))["data"].values()
    return {one["serial"]: one["until"] for one in json.loads(text).get("deniedCertificates", [])}


async def test_leaves_of_a_deleted_object_are_denied_until_they_end() -> None:
    site = Site()
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        secret = site.api.found(SECRET, Key("mcp-servers", "notes-tokenward"))
        credential = leaves.read(rotation.decoded(secret))
        assert credential is not None
        expected = {credential.serial: format_time(credential.ends)}
        assert denied(site) == {}
        site.api.remove(MCP_SERVER_AUTH, NOTES)
        await site.until(lambda: denied(site) == expected)
        # Made anew, as another object.
        site.api.remove(SECRET, Key("mcp-servers", "notes-tokenward"))
        site.put_server()
        await site.until(lambda: site.is_so("Ready", "True"))
        await site.quiet()
        assert denied(site) == expected
    async with running(site, "another"):
        await site.quiet()
        assert denied(site) == expected


async def test_leaves_of_pods_are_denied_too() -> None:
    site = Site()
    site.put_auth_server(certificates={"workloads": {"source": "PodCertificate"}})
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        put_request(site)
        await site.until(lambda: answer(site) == ("Issued", "Issued"))
        await site.quiet()
        chain = site.api.found(POD_CERTIFICATE_REQUEST, REQUEST)["status"]["certificateChain"]
        site.api.remove(MCP_SERVER_AUTH, NOTES)
        await site.until(lambda: len(denied(site)) == 1)
    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    assert denied(site) == {f"{leaf.serial_number:X}": format_time(leaf.not_valid_after_utc)}


def test_a_leaf_is_not_denied_beyond_its_end_and_not_forgotten_before_it_is_written() -> None:
    index = Index(SYSTEM)
    made = server_object()
    shard = resource_map.shard_of(NOTES)
    index.deny(ServerAuth.of(made), {"A1": NOW + timedelta(hours=1)})
    assert index.denied("main", NOW)[shard] == {"A1": NOW + timedelta(hours=1)}
    for step in (NOW, NOW + timedelta(minutes=59)):
        text = resource_map.build([], (), index.denied("main", step)).shards[shard]
        index.put_shard(SHARD, {"data": {"x": text}})
        assert set(index.denied("main", step)[shard]) == {"A1"}
    assert index.denied("main", NOW + timedelta(hours=1))[shard] == {}


async def test_an_adoption_is_recorded_before_the_map_says_so() -> None:
    site = Site()
    site.put_auth_server(adoptions=[confirmed()])
    made = server_object()
    del made["metadata"]["uid"]
    made["metadata"]["annotations"] = {"tokenward.dev/adopt": URL}
    site.api.put(made)
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        await site.quiet()
        uid = site.api.found(MCP_SERVER_AUTH, NOTES)["metadata"]["uid"]
        adopted = [{**confirmed(), "uid": uid}]
        assert site.auth_status()["adopted"] == adopted
        assert site.map()[URL]["workload"]["adopts"] == ""
        verbs = [
            (verb, kind, key.name)
            for verb, kind, key in site.api.calls
            if (kind == "ConfigMap" and key.name == SHARD) or kind == "MCPAuthServer"
        ]
        assert verbs.index(("patch", "MCPAuthServer", "main")) < verbs.index(
            ("apply", "ConfigMap", SHARD)
        )
        # A namesake is another object, whatever it asks for.
        site.api.remove(MCP_SERVER_AUTH, NOTES)
        site.api.put(made)
        other = site.api.found(MCP_SERVER_AUTH, NOTES)["metadata"]["uid"]
        await site.until(lambda: site.map().get(URL, {}).get("workload", {}).get("uid") == other)
        assert "notBefore" in site.map()[URL]["workload"]
        assert site.auth_status()["adopted"] == adopted
    assert auth_server().adopted == ()
    assert site.api.found(MCP_AUTH_SERVER, MAIN)["status"]["adopted"] == adopted
