"""The guard and the gateway: its variables are the annotations, and its port is the sidecar's."""

from typing import Any

import pytest

from tests.manifests.conftest import Rendered
from tests.manifests.guard_settings import settings_under
from tests.manifests.objects import find
from tests.manifests.policies import Request
from tests.webhook.pods import injected, pod, sidecar_of
from webhook.annotations import GATEWAY_KEYS
from webhook.gateway_options import variable_of

ANNOTATIONS = {
    "resource": "https://mcp.example.com/mcp",
    "gateway": "8080:8000",
    "gateway-token": "upstream",
    "gateway-header": "X-GitHub-Token",
    "gateway-upstream": "github",
    "gateway-open-paths": "/healthz",
    "gateway-origins": "https://app.example.com",
    "gateway-app-port": "network-policy",
}
CHANGED = "tokenward: the sidecar's gateway is not the one that the annotations ask for"


@pytest.fixture
def made(configuration: dict[str, Any]) -> dict[str, Any]:
    profile = {"gatewayStreamMaxSeconds": 600}
    under = settings_under(configuration, profiles={"default": profile})
    return injected(pod(ANNOTATIONS, container={"ports": [{"containerPort": 8000}]}), under)


def test_a_gateway_as_the_webhook_makes_it_passes(
    guard: dict[str, Any], rendered: Rendered, configuration: dict[str, Any], made: dict[str, Any]
) -> None:
    second = find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-guard-configuration")
    assert Request(made).refusals(guard) == []
    assert Request(made, params=configuration).refusals(second) == []


def test_the_guard_knows_every_annotation_of_the_gateway(guard: dict[str, Any]) -> None:
    (known,) = (v for v in guard["spec"]["variables"] if v["name"] == "gateway")
    for key in GATEWAY_KEYS:
        assert f"'{variable_of(key)}': '{key}'" in known["expression"]


@pytest.mark.parametrize("key", [key for key in ANNOTATIONS if key.startswith("gateway")])
def test_a_variable_of_the_gateway_that_was_removed_or_changed_is_refused(
    guard: dict[str, Any], made: dict[str, Any], key: str
) -> None:
    name = variable_of(f"tokenward.dev/{key}")
    container = sidecar_of(made)
    kept = [entry for entry in container["env"] if entry["name"] != name]
    for env in (kept, [*kept, {"name": name, "value": "8080:22"}]):
        container["env"] = env
        assert CHANGED in Request(made).refusals(guard)


def test_a_gateway_that_nobody_asked_for_is_refused(
    guard: dict[str, Any], configuration: dict[str, Any]
) -> None:
    for name, value in (("TOKENWARD_GATEWAY", "8080:22"), ("TOKENWARD_GATEWAY_STREAM_MAX", "60")):
        other = injected(pod(), settings_under(configuration))
        sidecar_of(other)["env"].append({"name": name, "value": value})
        assert Request(other).refusals(guard) == [CHANGED]


def test_a_gateway_whose_port_is_gone_or_taken_is_refused(
    guard: dict[str, Any], made: dict[str, Any]
) -> None:
    app = made["spec"]["containers"][0]
    for ports in ([{"containerPort": 8080}], [{"containerPort": 8000, "hostPort": 8000}]):
        app["ports"] = ports
        (refusal,) = Request(made).refusals(guard)
        assert "the gateway's port is missing" in refusal
    app["ports"] = []
    sidecar_of(made)["ports"].pop()
    (refusal,) = Request(made).refusals(guard)
    assert "the gateway's port is missing" in refusal
