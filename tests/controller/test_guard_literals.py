"""The guard's literals follow the configuration; a former image passes for its last day."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.api.objects import Object
from controller.reconcile import guard
from tests.controller.samples import NOW
from tests.manifests.policies import Request
from tests.manifests.rendering import render
from tests.webhook.pods import environment, injected, settings, sidecar_of
from tests.webhook.pods import pod as sample_pod

OLD, NEW = (f"registry.example.com/tokenward/sidecar@sha256:{c * 64}" for c in "ab")
TEXT = "trustDomain: cluster.local\nissuer: https://auth.example.com\n  url: https://x.svc:8443"


def policy() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "P", "metadata": {"name": "p"}}


def after(before: Object, image: str, days: float = 0) -> dict[str, Any]:
    """The policy after a look at this configuration."""
    images = guard.allowed_images(before, image, NOW + timedelta(days=days))
    return {**policy(), **guard.literals(policy(), TEXT, images)}


def lines(found: Object) -> list[str]:
    (variable,) = found["spec"]["variables"]
    assert variable["name"] == "lines"
    read: list[str] = json.loads(variable["expression"])
    return read


def test_the_lines_are_those_of_the_file_and_every_allowed_image() -> None:
    found = after(policy(), OLD)
    assert lines(found) == [*TEXT.splitlines(), f"image: {OLD}"]


def test_a_former_image_passes_for_a_day() -> None:
    first = after(policy(), OLD)
    changed = after(first, NEW, days=5)
    assert {f"image: {OLD}", f"image: {NEW}"} <= set(lines(changed))
    later = after(changed, NEW, days=5.9)
    assert f"image: {OLD}" in lines(later)
    over = after(later, NEW, days=6.1)
    assert f"image: {OLD}" not in lines(over)
    back = after(changed, OLD, days=5.1)
    assert {f"image: {OLD}", f"image: {NEW}"} <= set(lines(back))


def test_an_image_whose_last_day_is_over_is_remembered_while_a_pod_has_it() -> None:
    changed = after(after(policy(), OLD), NEW)
    now = NOW + timedelta(days=1)
    assert guard.former_images(changed, NEW, NOW + timedelta(hours=23), {OLD}) == {}
    former = guard.former_images(changed, NEW, now, {OLD, NEW})
    assert former == {OLD: now}
    images = guard.allowed_images(changed, NEW, now)
    kept = {**policy(), **guard.literals(policy(), TEXT, images, former)}
    assert lines(kept) == [*TEXT.splitlines(), f"image: {NEW}"]
    week = NOW + timedelta(days=7)
    assert guard.former_images(kept, NEW, week, {OLD}) == former
    assert guard.former_images(kept, NEW, week, {NEW}) == {}
    assert guard.former_images(kept, OLD, week, {OLD}) == {}


@pytest.mark.parametrize("text", ["", "x", "[]", '{"a": 1}', "null"])
def test_an_annotation_that_was_spoilt_allows_the_configured_image_only(text: str) -> None:
    spoilt = {**policy(), "metadata": {"name": "p", "annotations": {guard.IMAGES: text}}}
    found = dict(guard.allowed_images(spoilt, NEW, NOW))
    assert found.pop(NEW) is None
    assert all(image == "a" for image in found)


def test_without_an_image_none_is_allowed() -> None:
    assert guard.allowed_images(policy(), "", NOW) == {}


def test_the_shipped_policy_decides_by_these_lines(tmp_path: Path) -> None:
    shipped = render("overlays/quickstart", tmp_path)
    (found,) = (
        one
        for one in shipped
        if one["metadata"]["name"] == "tokenward-guard-configuration"
        and one["kind"] == "ValidatingAdmissionPolicy"
    )
    assert "paramKind" not in found["spec"]
    pod = injected(sample_pod(), settings())
    sidecar = sidecar_of(pod)
    told = environment(sidecar)
    assert Request(pod).refusals(found) != []  # until the controller has written it
    text = "\n".join(
        [
            f"trustDomain: {told['TOKENWARD_SPIFFE_ID'].split('/')[2]}",
            f"issuer: {told['TOKENWARD_ISSUER']}",
            f"  url: {told['TOKENWARD_AUTHSERVER_URL']}",
        ]
    )
    made = guard.literals(found, text, guard.allowed_images(found, sidecar["image"], NOW))
    (written,) = made["spec"]["variables"]
    found["spec"]["variables"] = [
        written if one["name"] == "lines" else one for one in found["spec"]["variables"]
    ]
    assert Request(pod).refusals(found) == []
    sidecar["image"] = NEW
    assert Request(pod).refusals(found) == [
        "tokenward: the sidecar's image is not the configured one"
    ]
