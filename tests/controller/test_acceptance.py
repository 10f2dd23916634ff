"""Who gets a resource: the same answer on every replica, after every restart, in any order."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.objects import Key
from controller.reconcile import resource_map
from controller.reconcile.acceptance import claim_of
from controller.reconcile.index import Index
from tests.controller.samples import (
    NOW,
    SYSTEM,
    auth_server_object,
    server_object,
    stamp,
    tenant,
)

MAIN = Key(SYSTEM, "main")
NOTES, SQUATTER = Key("mcp-servers", "notes"), Key("others", "squatter")


def index(*servers: dict[str, Any], auth: dict[str, Any] | None = None) -> Index:
    made = Index(SYSTEM)
    made.put_auth_server(MAIN, auth or auth_server_object())
    for name in ("mcp-servers", "others"):
        made.put_namespace(name, {"metadata": {"name": name, "labels": {"team": name}}})
    for one in servers:
        made.put_server(Key(one["metadata"]["namespace"], one["metadata"]["name"]), one)
    return made


def answer(made: Index, key: Key) -> str:
    found = made.verdict(key, NOW)
    assert (found.status == "True") == (found.reason == "Accepted")
    return found.reason.value


def programmed(made: Index, *owners: dict[str, Any]) -> None:
    """The map in the cluster names these servers."""
    text = json.dumps(
        {
            "resources": [
                {
                    "resource": one["spec"]["resource"],
                    "workload": {
                        "namespace": one["metadata"]["namespace"],
                        "name": one["metadata"]["name"],
                        "uid": one["metadata"]["uid"],
                    },
                }
                for one in owners
            ]
        }
    )
    made.put_shard("main-resources-00", {"data": {"resources-00.yaml": text}})


def test_a_server_that_a_tenant_permits_is_accepted() -> None:
    assert answer(index(server_object()), NOTES) == "Accepted"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authServerRef": {"name": "other", "namespace": SYSTEM}}, "NoSuchAuthServer"),
        ({"authServerRef": {"name": "main", "namespace": "mcp-servers"}}, "NoSuchAuthServer"),
        ({"authServerRef": {}}, "NoSuchAuthServer"),
        ({"upstreams": [{"name": "gitlab"}]}, "NoSuchUpstream"),
        ({"upstreams": []}, "NoSuchUpstream"),
        ({"resource": "https://auth.example.com/mcp"}, "InvalidResource"),
        ({"resource": "https://main-internal.tokenward-system.svc:8443/x"}, "InvalidResource"),
        ({"resource": "https://idp.example.com/mcp"}, "InvalidResource"),
        ({"resource": "https://notes.mcp.example.com/a/../b"}, "InvalidResource"),
        ({"resource": ""}, "InvalidResource"),
        ({"resource": "https://else.example.com/mcp"}, "NotPermitted"),
    ],
)
def test_a_server_is_refused_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    auth = auth_server_object(tenants=[tenant(), tenant(resources=["https://*.example.com/*"])])
    if reason == "NotPermitted":
        auth = auth_server_object()
    auth["spec"]["upstreams"].append(
        {"name": "idp", "type": "oidc", "issuer": "https://idp.example.com", "clientId": "x"}
    )
    made = server_object()
    made["spec"] |= changes
    assert answer(index(made, auth=auth), NOTES) == reason


def test_an_auth_server_elsewhere_does_not_count() -> None:
    foreign = auth_server_object()
    foreign["metadata"]["namespace"] = "mcp-servers"
    made = Index(SYSTEM)
    made.put_auth_server(Key("mcp-servers", "main"), foreign)
    one = server_object(authServerRef={"name": "main", "namespace": "mcp-servers"})
    made.put_server(NOTES, one)
    assert answer(made, NOTES) == "NoSuchAuthServer"


def test_without_a_tenant_nobody_is_permitted() -> None:
    assert answer(index(server_object(), auth=auth_server_object(tenants=[])), NOTES) == (
        "NotPermitted"
    )


def test_the_older_object_has_the_resource_in_any_spelling() -> None:
    made = index(
        server_object(age=timedelta(hours=2)),
        server_object(
            "squatter",
            "others",
            resource="https://NOTES.mcp.example.com:443/mcp/",
            age=timedelta(hours=1),
        ),
    )
    assert (answer(made, NOTES), answer(made, SQUATTER)) == ("Accepted", "Conflict")
    told = made.verdict(SQUATTER, NOW).message
    assert "another namespace" in told
    assert "notes" not in told
    assert "mcp-servers" not in told


def test_of_two_objects_of_one_second_the_smaller_uid_wins() -> None:
    made = index(server_object(uid="b"), server_object("squatter", "others", uid="a"))
    assert (answer(made, NOTES), answer(made, SQUATTER)) == ("Conflict", "Accepted")


def test_who_may_not_have_the_resource_blocks_nobody() -> None:
    old = server_object("squatter", "others", age=timedelta(days=9), upstreams=[{"name": "x"}])
    assert answer(index(server_object(), old), NOTES) == "Accepted"
    ending = server_object("squatter", "others", age=timedelta(days=9))
    ending["metadata"]["deletionTimestamp"] = stamp()
    assert answer(index(server_object(), ending), NOTES) == "Accepted"


# A squatter waits for the moment when the owner is deleted and applied again.


def test_a_freed_resource_is_kept_for_its_namespace() -> None:
    owner = server_object(uid="first", age=timedelta(days=3))
    squatter = server_object("squatter", "others", age=timedelta(days=2))
    made = index(squatter)
    programmed(made, owner)
    assert answer(made, SQUATTER) == "Conflict"
    (reserved,) = made.reservations(made.auth_servers[MAIN], NOW)
    assert (reserved.namespace, reserved.until - NOW) == ("mcp-servers", timedelta(days=7))
    # The owner comes back, younger than the squatter, with another UID.
    again = server_object(uid="second")
    made.put_server(NOTES, again)
    assert (answer(made, NOTES), answer(made, SQUATTER)) == ("Accepted", "Conflict")


def reserved_for(namespace: str, until: timedelta, **annotations: str) -> dict[str, Any]:
    auth = auth_server_object()
    auth["metadata"]["annotations"] = annotations
    resource = "https://notes.mcp.example.com/mcp"
    auth["status"] = {
        "reserved": [{"resource": resource, "namespace": namespace, "until": stamp(until)}]
    }
    return auth


def test_a_reservation_holds_until_its_end_and_on_while_it_is_used() -> None:
    squatter = server_object("squatter", "others", age=timedelta(days=2))
    soon, over = timedelta(seconds=1), timedelta(seconds=-1)
    assert answer(index(squatter, auth=reserved_for("mcp-servers", soon)), SQUATTER) == "Conflict"
    made = index(squatter, auth=reserved_for("mcp-servers", over))
    assert answer(made, SQUATTER) == "Accepted"
    # Its namespace uses it: the end does not let the older squatter in.
    made = index(squatter, server_object(), auth=reserved_for("mcp-servers", over))
    assert (answer(made, NOTES), answer(made, SQUATTER)) == ("Accepted", "Conflict")
    assert len(made.reservations(made.auth_servers[MAIN], NOW)) == 1


def test_the_operator_can_release_a_reserved_resource() -> None:
    squatter = server_object("squatter", "others")
    url = "https://notes.mcp.example.com/mcp/"
    auth = reserved_for("mcp-servers", timedelta(days=1), **{"tokenward.dev/release-resource": url})
    made = index(squatter, auth=auth)
    assert answer(made, SQUATTER) == "Accepted"
    assert made.reservations(made.auth_servers[MAIN], NOW) == []


def test_a_moved_entry_is_reserved_and_a_living_owner_is_not() -> None:
    owner = server_object(uid="u")
    made = index(owner)
    programmed(made, owner)
    assert made.reservations(made.auth_servers[MAIN], NOW) == []
    moved = server_object(uid="u", resource="https://other.mcp.example.com/mcp")
    made.put_server(NOTES, moved)
    (reserved,) = made.reservations(made.auth_servers[MAIN], NOW)
    assert reserved.resource == "https://notes.mcp.example.com/mcp"


# Any order of events ends in the same verdicts and the same map.

_names = st.sampled_from(["a", "b", "c", "d"])
_servers = st.lists(
    st.tuples(
        _names,
        st.sampled_from(["mcp-servers", "others", "strangers"]),
        st.sampled_from(["one", "two", "ONE"]),
        st.integers(0, 2),
    ),
    max_size=8,
    unique_by=lambda one: one[:2],
)


@given(_servers, st.randoms(use_true_random=False), st.data())
@settings(max_examples=150, deadline=None)
def test_any_order_of_events_ends_in_the_same_map(
    chosen: list[tuple[str, str, str, int]], order: Any, data: st.DataObject
) -> None:
    objects = [
        server_object(
            name,
            namespace,
            resource=f"https://{host}.mcp.example.com/mcp",
            age=timedelta(hours=hours),
        )
        for name, namespace, host, hours in chosen
    ]
    expected = index(*objects)

    made = Index(SYSTEM)
    events: list[Any] = [("auth", None), ("namespace", None)]
    events += [("server", one) for one in objects]
    # Objects that come and go again, and former states of those that stay.
    ghosts = data.draw(_servers)
    for name, namespace, host, hours in ghosts:
        url = f"https://{host}.mcp.example.com/mcp"
        ghost = server_object(
            f"ghost-{name}", namespace, resource=url, age=timedelta(days=9, hours=hours)
        )
        events.append(("ghost", ghost))
    order.shuffle(events)
    for kind, one in events:
        if kind == "auth":
            made.put_auth_server(MAIN, auth_server_object())
        elif kind == "namespace":
            for name in ("mcp-servers", "others"):
                made.put_namespace(name, {"metadata": {"name": name, "labels": {"team": name}}})
        else:
            key = Key(one["metadata"]["namespace"], one["metadata"]["name"])
            earlier = server_object(*reversed(key), resource="https://one.mcp.example.com/mcp")
            made.put_server(key, earlier)
            made.put_server(key, one)
    for kind, one in events:
        if kind == "ghost":
            made.put_server(Key(one["metadata"]["namespace"], one["metadata"]["name"]), None)

    assert {key: made.verdict(key, NOW) for key in made.servers} == {
        key: expected.verdict(key, NOW) for key in expected.servers
    }
    maps = [resource_map.build(one.accepted(MAIN, NOW)) for one in (made, expected)]
    assert maps[0] == maps[1]
    # Each resource has one owner at most, and somebody has it if somebody may.
    owned = [claim_of(one) for one in made.accepted(MAIN, NOW)]
    assert len(owned) == len(set(owned))
    wanted = {
        one.resource.lower() for one in made.servers.values() if one.key.namespace != "strangers"
    }
    assert set(owned) == wanted
