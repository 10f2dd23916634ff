"""Running pods at a real API server: what is ours stays, and every other edit passes."""

import json
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Refused, eventually
from tests.cluster.pods import intact, named

_OTHER = f"registry.example.com/other@sha256:{'b' * 64}"


def _patch(cluster: Cluster, name: str, change: Any, *options: str) -> str:
    """The API server's answer to a strategic merge patch; a refusal is returned as text."""
    patch = ("patch", "pod", name, "-p", json.dumps(change), "--dry-run=server", *options)
    try:
        return cluster.inside(*patch)
    except Refused as told:
        return str(told)


def _image(container: str, image: str) -> Any:
    return {"spec": {"initContainers": [{"name": container, "image": image}]}}


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (_image("tokenward-sidecar", _OTHER), "keeps its image"),
        ({"metadata": {"labels": {"tokenward.dev/injected": None}}}, "labels of tokenward.dev/"),
        ({"metadata": {"labels": {"tokenward.dev/other": "x"}}}, "labels of tokenward.dev/"),
        ({"metadata": {"annotations": {"tokenward.dev/status": "{}"}}}, "annotations of tokenward"),
        ({"metadata": {"annotations": {"tokenward.dev/status": None}}}, "annotations of tokenward"),
        (
            {"metadata": {"annotations": {"tokenward.dev/authserver-ca": "x"}}},
            "only the controller",
        ),
    ],
)
def test_what_is_ours_stays(guarded: Cluster, change: Any, refused: str) -> None:
    guarded.create(intact("running", guarded.namespace))
    assert refused in _patch(guarded, "running", change)
    if "metadata" in change:
        assert refused in _patch(guarded, "running", change, "--subresource=status")


def test_every_other_edit_passes(guarded: Cluster) -> None:
    guarded.create(intact("running", guarded.namespace))
    app = {"spec": {"containers": [{"name": "app", "image": "registry.example.com/app:2"}]}}
    for change in (
        app,
        {"metadata": {"labels": {"team": "x"}, "annotations": {"example.com/note": "x"}}},
        {"metadata": {"finalizers": ["tokenward.dev-tests/held"]}},
    ):
        assert "patched" in _patch(guarded, "running", change)
    ended = {"status": {"phase": "Succeeded"}}
    assert "patched" in _patch(guarded, "running", ended, "--subresource=status")


def test_a_plain_pod_cannot_be_marked(guarded: Cluster) -> None:
    guarded.create(named("plain", {"inject": "false"}))
    mark = {"metadata": {"labels": {"tokenward.dev/injected": "true"}}}
    assert "labels of tokenward.dev/" in _patch(guarded, "plain", mark)


def test_an_injected_pod_with_a_finalizer_goes_away(guarded: Cluster) -> None:
    made = intact("held", guarded.namespace)
    made["metadata"]["finalizers"] = ["tokenward.dev-tests/held"]
    guarded.create(made)
    guarded.inside("delete", "pod", "held", "--wait=false")
    release = '[{"op":"remove","path":"/metadata/finalizers"}]'
    guarded.inside("patch", "pod", "held", "--type=json", "-p", release)
    eventually(lambda: guarded.get("pod", "held"), lambda found: found is None)
