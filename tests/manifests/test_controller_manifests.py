"""What the controller is installed with."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.v1alpha1 import SCHEMA, SCHEMA_ANNOTATION
from controller.settings import Settings
from tests.manifests.objects import find
from tests.manifests.rendering import CONTROLLED, VERSIONS, faults, render
from tests.webhook.pods import CA
from webhook.settings import check

Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Objects]:
    workspace = tmp_path_factory.mktemp("controlled")
    return {name: render(name, workspace) for name in CONTROLLED}


@pytest.mark.parametrize("name", CONTROLLED)
def test_every_object_passes_its_schema(shipped: dict[str, Objects], name: str) -> None:
    version = VERSIONS[-1]
    assert [fault for one in shipped[name] for fault in faults(one, version)] == []


def test_a_member_that_the_schema_does_not_know_is_a_fault(shipped: dict[str, Objects]) -> None:
    made = find(shipped["overlays/quickstart"], "MCPServerAuth", "notes")
    spoilt = {**made, "spec": {**made["spec"], "unknown": 1}}
    assert list(faults(spoilt, VERSIONS[-1])) != []


def test_the_shipped_configuration_of_the_controller_is_good(shipped: dict[str, Objects]) -> None:
    config = find(shipped["overlays/quickstart"], "ConfigMap", "tokenward-controller")
    settings = Settings.model_validate(yaml.safe_load(config["data"]["controller.yaml"]))
    assert settings.webhook is not None
    server = find(shipped["overlays/quickstart"], "MCPAuthServer", settings.webhook.auth_server)
    assert server["metadata"]["namespace"] == settings.namespace
    raw = {**settings.webhook.configuration, "trustDomain": "x", "issuer": "https://x"}
    checked = check({**raw, "authserver": {"url": "https://x", "caFile": CA}}, Path())
    assert {"image", "profiles"} <= checked.model_fields_set


def test_the_quickstart_needs_nothing_made_by_hand(shipped: dict[str, Objects]) -> None:
    objects = shipped["overlays/quickstart"]
    kinds = {one["kind"] for one in objects}
    assert "Secret" not in kinds
    configured = find(objects, "MutatingWebhookConfiguration", "tokenward")
    assert all("caBundle" not in one["clientConfig"] for one in configured["webhooks"])
    # The controller writes the webhook's file.
    names = {one["metadata"]["name"] for one in objects if one["kind"] == "ConfigMap"}
    assert names == {"tokenward-controller"}


def test_two_replicas_run_without_rights_on_their_node(shipped: dict[str, Objects]) -> None:
    deployment = find(shipped["overlays/quickstart"], "Deployment", "tokenward-controller")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "env" not in container


def test_both_schemas_carry_the_version_that_the_controller_wants(
    shipped: dict[str, Objects],
) -> None:
    for one in shipped["crds"]:
        assert one["metadata"]["annotations"][SCHEMA_ANNOTATION] == str(SCHEMA)


def bounds(schema: Any, where: str = "") -> list[str]:
    """Arrays, maps and strings without a bound."""
    found = []
    if isinstance(schema, dict):
        kind = schema.get("type")
        if kind == "array" and "maxItems" not in schema:
            found.append(f"{where}: array")
        if kind == "string" and not {"maxLength", "enum", "format"} & set(schema):
            found.append(f"{where}: string")
        if kind == "object" and "additionalProperties" in schema and "maxProperties" not in schema:
            found.append(f"{where}: map")
        free = schema.get("x-kubernetes-preserve-unknown-fields")
        if free and "maxProperties" not in schema:
            found.append(f"{where}: free")
        for name, one in (schema.get("properties") or {}).items():
            found += bounds(one, f"{where}.{name}")
        for name in ("items", "additionalProperties"):
            found += bounds(schema.get(name), f"{where}[]")
    return found


def test_every_array_map_and_string_has_a_bound_and_every_member_a_description(
    shipped: dict[str, Objects],
) -> None:
    for one in shipped["crds"]:
        (version,) = one["spec"]["versions"]
        members = version["schema"]["openAPIV3Schema"]["properties"]
        for part in ("spec", "status"):
            assert bounds(members[part], part) == []
            assert undescribed(members[part], part) == []


def undescribed(schema: Any, where: str) -> list[str]:
    found = []
    for name, one in (schema.get("properties") or {}).items():
        if not one.get("description"):
            found.append(f"{where}.{name}")
        found += undescribed(one, f"{where}.{name}")
    if isinstance(schema.get("items"), dict):
        found += undescribed(schema["items"], f"{where}[]")
    return found
