"""TOKENWARD_GATEWAY and what belongs to it; the webhook's annotations are the same texts."""

from pathlib import Path
from typing import Any

import pytest

from chassis.process import ConfigurationError
from sidecar.gateway.settings import GatewaySettings
from sidecar.settings import read_settings
from tests.sidecar.harness import environment
from tests.webhook.pods import environment as variables_of
from tests.webhook.pods import injected, pod, sidecar_of, verdict

RESOURCE = "https://mcp.example.com/mcp"


def read(**variables: str) -> GatewaySettings:
    settings = read_settings(environment(Path("/x"), "https://a.example", **variables)).gateway
    assert settings is not None
    return settings


def faults(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        read(**variables)
    return "; ".join(map(str, refused.value.faults))


def test_a_gateway_has_the_contracts_defaults() -> None:
    found = read(GATEWAY="8080:8000")
    assert found == GatewaySettings(
        host="::", port=8080, target=8000, puts_token_in=False, header="Authorization",
        upstream=None, open_paths=frozenset(), origins=frozenset(), checks_app_port=False,
        stream_max=3600,
    )  # fmt: skip


def test_without_the_variable_there_is_no_gateway() -> None:
    assert read_settings(environment(Path("/x"), "https://a.example")).gateway is None


def test_the_apps_port_is_looked_at_in_kubernetes_alone() -> None:
    there = environment(Path("/x"), "https://a.example", GATEWAY="8080:8000")
    there["KUBERNETES_SERVICE_HOST"] = "10.0.0.1"
    found = read_settings(there).gateway
    assert found is not None
    assert found.checks_app_port
    there["TOKENWARD_GATEWAY_APP_PORT"] = "network-policy"
    found = read_settings(there).gateway
    assert found is not None
    assert not found.checks_app_port


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"GATEWAY": "8080"}, "TOKENWARD_GATEWAY: must be <port>:<target>"),
        ({"GATEWAY": "8080:8080"}, "must not lead to itself"),
        ({"GATEWAY": "8080:70000"}, "must be <port>:<target>"),
        ({"GATEWAY": "15500:8000", "PORT": "15500"}, "must differ from TOKENWARD_PORT"),
        ({"GATEWAY": "15501:8000", "OPS_PORT": "15501"}, "must differ from TOKENWARD_OPS_PORT"),
        ({"GATEWAY": "8080:15500", "PORT": "15500"}, "must not lead to TOKENWARD_PORT"),
        ({"GATEWAY": "8080:8000", "RESOURCE": ""}, "TOKENWARD_RESOURCE: is needed"),
        ({"GATEWAY": "8080:8000", "GATEWAY_TOKEN": "x"}, "must be client or upstream"),
        ({"GATEWAY": "8080:8000", "GATEWAY_HEADER": "X-A"}, "needs TOKENWARD_GATEWAY_TOKEN"),
        ({"GATEWAY": "8080:8000", "GATEWAY_HOST": "pod"}, "must be an IP address"),
        ({"GATEWAY": "8080:8000", "GATEWAY_STREAM_MAX": "59"}, "must be from 60"),
        ({"GATEWAY": "8080:8000", "GATEWAY_STREAM_MAX": "1e3"}, "must be a whole number"),
        ({"GATEWAY": "8080:8000", "GATEWAY_ORIGINS": "*"}, "not of its form"),
        ({"GATEWAY": "8080:8000", "GATEWAY_OPEN_PATHS": "healthz"}, "not of its form"),
        ({"GATEWAY": "8080:8000", "GATEWAY_UPSTREAM": "a b"}, "name of an upstream"),
        ({"GATEWAY": "8080:8000", "GATEWAY_APP_PORT": "x"}, "must be network-policy"),
    ],
)
def test_a_bad_value_is_a_fault(variables: dict[str, str], part: str) -> None:
    assert part in faults(**variables)


def test_every_fault_is_reported_at_once() -> None:
    told = faults(GATEWAY="x", GATEWAY_TOKEN="y", GATEWAY_HOST="z")
    assert told.count("TOKENWARD_GATEWAY") == 3


# Both read the same texts.

VALUES: list[tuple[str, Any]] = [
    ("gateway-header", ["Authorization", "X-GitHub-Token", "Host", "a b", "X-Tokenward-User", "a"]),
    ("gateway-upstream", ["github", "a.b-c_d", "a b", "-a", "a" * 64]),
    ("gateway-open-paths", ["/healthz", "/a,/b", "/a /b", "/%41", "a", "/a?b", "/ä", ",", "/a#"]),
    (
        "gateway-origins",
        ["https://a.example", "http://localhost:6274", "https://[::1]:8", "*", "null", "https://a/",
         "https://A.example", "https://a.example:443", "http://a.example:443", "a.example"],
    ),
    ("gateway-app-port", ["network-policy", "other"]),
    ("gateway-token", ["client", "upstream", "Client"]),
    ("gateway", ["8080:8000", "8080:80", "8080:0", "8080:8080", "8080:70000", "8080"]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, v) for key, values in VALUES for v in values])
def test_webhook_and_sidecar_read_a_value_alike(key: str, value: str) -> None:
    base = {"resource": RESOURCE, "gateway": "8080:8000"}
    if key == "gateway-header":
        base["gateway-token"] = "upstream"
    told = verdict(pod(base | {key: value}))
    variable = key.upper().replace("-", "_")
    given = {name.upper().replace("-", "_"): text for name, text in base.items()} | {
        variable: value
    }
    try:
        read(**given)
        accepted = True
    except ConfigurationError:
        accepted = False
    assert told.allowed == accepted, told.message


def test_what_the_webhook_writes_configures_the_gateway() -> None:
    asked = {
        "resource": RESOURCE, "gateway": "8080:8000", "gateway-token": "upstream",
        "gateway-header": "X-GitHub-Token", "gateway-upstream": "github",
        "gateway-open-paths": "/healthz, /livez", "gateway-origins": "https://app.example.com",
        "gateway-app-port": "network-policy",
    }  # fmt: skip
    found = read_settings(variables_of(sidecar_of(injected(pod(asked))))).gateway
    assert found == GatewaySettings(
        host="::", port=8080, target=8000, puts_token_in=True, header="X-GitHub-Token",
        upstream="github", open_paths=frozenset({"/healthz", "/livez"}),
        origins=frozenset({"https://app.example.com"}), checks_app_port=False, stream_max=3600,
    )  # fmt: skip
