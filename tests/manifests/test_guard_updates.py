"""The guard on running pods: what is ours stays, and every other update passes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.manifests.conftest import Rendered
from tests.manifests.objects import find
from tests.manifests.policies import Request
from tests.webhook.pods import injected, pod, recorded_pod, sidecar_of

_CONTROLLER = "system:serviceaccount:tokenward-system:tokenward-controller"
_CA = "tokenward.dev/authserver-ca"

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def updates(rendered: Rendered) -> dict[str, Any]:
    return find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-guard-updates")


@pytest.fixture
def controllers(rendered: Rendered) -> dict[str, Any]:
    return find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-guard-controller")


def _running() -> dict[str, Any]:
    found = injected(pod(initContainers=[{"name": "set-up", "image": "x"}]))
    found["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    found["status"] = {"phase": "Running"}
    return found


def _update(change: Change, before: dict[str, Any], user: str = "somebody") -> Request:
    after = copy.deepcopy(before)
    change(after)
    return Request(after, "UPDATE", old=before, user=user)


def _swap_image(found: dict[str, Any]) -> None:
    sidecar_of(found)["image"] = "other:1"


def _remove_sidecar(found: dict[str, Any]) -> None:
    del found["spec"]["initContainers"][0]


def _label(value: str | None) -> Change:
    return _entry("labels", "tokenward.dev/injected", value)


def _annotation(key: str, value: str | None) -> Change:
    return _entry("annotations", f"tokenward.dev/{key}", value)


def _entry(field: str, key: str, value: str | None) -> Change:
    def change(found: dict[str, Any]) -> None:
        entries = found["metadata"].setdefault(field, {})
        if value is None:
            del entries[key]
        else:
            entries[key] = value

    return change


def _no_metadata(field: str) -> Change:
    def change(found: dict[str, Any]) -> None:
        del found["metadata"][field]

    return change


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (_swap_image, "keeps its image"),
        (_remove_sidecar, "keeps its image"),
        (_label("false"), "labels"),
        (_label(None), "labels"),
        (_no_metadata("labels"), "labels"),
        (_entry("labels", "tokenward.dev/other", "x"), "labels"),
        (_annotation("status", '{"server":"victim"}'), "annotations"),
        (_annotation("status", None), "annotations"),
        (_annotation("server", "victim"), "annotations"),
        (_no_metadata("annotations"), "annotations"),
        (_annotation("authserver-ca", "another CA"), "only the controller"),
        (_annotation("authserver-ca", None), "annotations"),
    ],
)
def test_what_is_ours_stays_on_a_running_pod(
    updates: dict[str, Any], change: Change, refused: str
) -> None:
    (refusal,) = _update(change, _running()).refusals(updates)
    assert refused in refusal


@pytest.mark.parametrize(
    "change", [_label("true"), _annotation("status", "{}"), _annotation("authserver-ca", "x")]
)
def test_a_pod_that_was_never_injected_cannot_be_marked(
    updates: dict[str, Any], change: Change
) -> None:
    bare = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
    assert len(_update(change, bare).refusals(updates)) == 1
    assert _update(change, bare, _CONTROLLER).refusals(updates)


def _finalizer(found: dict[str, Any]) -> None:
    del found["metadata"]["finalizers"]


def _other_image(found: dict[str, Any]) -> None:
    found["spec"]["containers"][0]["image"] = "app:2"
    found["spec"]["initContainers"][1]["image"] = "x:2"


def _status(found: dict[str, Any]) -> None:
    found["status"] = {"phase": "Succeeded"}


@pytest.mark.parametrize(
    "change",
    [
        _finalizer,
        _other_image,
        _status,
        _entry("labels", "team", "x"),
        _entry("annotations", "example.com/note", "x"),
        lambda found: None,
    ],
)
def test_every_other_update_passes(updates: dict[str, Any], change: Change) -> None:
    request = _update(change, _running())
    (condition,) = updates["spec"]["matchConditions"]
    assert not request.holds(condition["expression"])
    assert request.refusals(updates) == []


@pytest.mark.parametrize("name", ["pod-create-job", "pod-create-replicaset"])
def test_pods_that_were_never_injected_are_not_looked_at(
    updates: dict[str, Any], name: str
) -> None:
    bare: dict[str, Any] = {"metadata": {}, "spec": {"containers": []}}
    for before in (recorded_pod(name), bare):
        assert _update(_entry("labels", "a", "b"), before).refusals(updates) == []


def test_only_the_controller_gives_running_pods_a_new_ca(
    updates: dict[str, Any], controllers: dict[str, Any]
) -> None:
    change = _annotation("authserver-ca", "old and new CA")
    for policy in (updates, controllers):
        assert _update(change, _running(), _CONTROLLER).refusals(policy) == []
    assert _update(change, _running(), _CONTROLLER + "x").refusals(updates)


@pytest.mark.parametrize(
    "change",
    [
        _swap_image,
        _other_image,
        _finalizer,
        _label(None),
        _entry("labels", "team", "x"),
        _annotation("status", "{}"),
        _entry("annotations", "example.com/note", "x"),
        _annotation("authserver-ca", None),
        _no_metadata("annotations"),
    ],
)
def test_the_controller_changes_nothing_else_of_a_pod(
    controllers: dict[str, Any], change: Change
) -> None:
    assert len(_update(change, _running(), _CONTROLLER).refusals(controllers)) == 1
    assert _update(change, _running()).refusals(controllers) == []


def test_the_controller_neither_creates_nor_deletes_pods(controllers: dict[str, Any]) -> None:
    assert len(Request(_running(), user=_CONTROLLER).refusals(controllers)) == 1


def test_the_policy_sees_updates_of_pods_and_of_their_status(updates: dict[str, Any]) -> None:
    (rule,) = updates["spec"]["matchConstraints"]["resourceRules"]
    assert rule["operations"] == ["UPDATE"]
    assert rule["resources"] == ["pods", "pods/status"]
