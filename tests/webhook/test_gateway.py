"""The annotations of the gateway: what they may say, and what a pod beside them must not do."""

from typing import Any

import pytest
import yaml

from chassis.process import ConfigurationError
from tests.webhook.pods import environment, injected, pod, settings, sidecar_of, verdict
from webhook.doors import doors
from webhook.reasons import Reason

RESOURCE = "https://mcp.example.com/mcp"
GATEWAY = {"resource": RESOURCE, "gateway": "8080:8000"}


def gated(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return pod(GATEWAY | (annotations or {}), **spec)


def probed(field: str, handler: dict[str, Any], annotations: dict[str, str] | None = None) -> Any:
    container = {"ports": [{"name": "http", "containerPort": 8000}], field: handler}
    return verdict(gated(annotations, container=container))


# Annotations.


def test_the_gateway_opens_a_port_of_the_sidecar_and_tells_it_the_annotations() -> None:
    texts = {
        "gateway-token": "upstream",
        "gateway-header": "X-GitHub-Token",
        "gateway-upstream": "github",
        "gateway-open-paths": "/healthz, /livez",
        "gateway-origins": "https://app.example.com,http://localhost:6274",
        "gateway-app-port": "network-policy",
    }
    container = sidecar_of(injected(gated(texts)))
    assert {"name": "tokenward-gw", "containerPort": 8080, "protocol": "TCP"} in container["ports"]
    found = environment(container)
    assert found["TOKENWARD_GATEWAY"] == "8080:8000"
    for key, text in texts.items():
        assert found[f"TOKENWARD_{key.upper().replace('-', '_')}"] == text


def test_a_pod_without_a_gateway_has_no_port_and_no_variable_of_it() -> None:
    container = sidecar_of(injected(pod({"resource": RESOURCE})))
    assert [port["name"] for port in container["ports"]] == ["tokenward-ops"]
    assert not any(name.startswith("TOKENWARD_GATEWAY") for name in environment(container))


@pytest.mark.parametrize(
    "value",
    [
        "8080", "8080:", ":8000", "8080:8000:1", "80:8000", "8080:0", "8080:65536", "70000:8000",
        "8080:8080", "08080:8000", "a:b", "8080 :8000", "8080:8000\n", "", "8080-8000",
        "127.0.0.1:8000", "\uff18080:8000",
    ],
)  # fmt: skip
def test_a_gateway_is_two_ports(value: str) -> None:
    told = verdict(gated({"gateway": value}))
    assert told.reason is Reason.BAD_VALUE
    assert "8080:8000" in told.message


def test_a_single_port_is_answered_with_what_was_meant() -> None:
    assert "did you mean 9000:<port of the app>?" in verdict(gated({"gateway": "9000"})).message


@pytest.mark.parametrize(
    ("annotations", "part"),
    [
        ({"gateway": "15500:8000"}, "tokenward.dev/port must differ"),
        ({"gateway": "15501:8000"}, "tokenward.dev/ops-port must differ"),
        ({"gateway": "8080:15500"}, "leads to 15500"),
        ({"gateway": "8080:15501"}, "leads to 15501"),
        ({"gateway": "8080:9000", "port": "9000"}, "leads to 9000"),
    ],
)
def test_a_gateway_neither_takes_nor_leads_to_a_port_of_ours(
    annotations: dict[str, str], part: str
) -> None:
    told = verdict(gated(annotations))
    assert (told.decision, told.reason) == ("denied", Reason.BAD_VALUE)
    assert part in told.message


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("gateway-token", "upstreams", "did you mean upstream?"),
        ("gateway-token", "", "allowed: client, upstream"),
        ("gateway-app-port", "networkpolicy", "did you mean network-policy?"),
        ("gateway-upstream", "git hub", "name of an upstream"),
        ("gateway-open-paths", "healthz", 'did you mean \\"/healthz\\"?'),
        ("gateway-open-paths", "/healthz?full=1", 'did you mean \\"/healthz\\"?'),
        ("gateway-open-paths", "/a#b", "neither query nor"),
        ("gateway-open-paths", "/ä", "exact paths"),
        ("gateway-open-paths", " , ", "1 to 16 entries"),
        ("gateway-open-paths", ",".join(f"/{at}" for at in range(17)), "1 to 16 entries"),
        ("gateway-open-paths", "/a" * 600, "1024 characters"),
        ("gateway-origins", "*", "origins as browsers send them"),
        ("gateway-origins", "null", "origins as browsers send them"),
        ("gateway-origins", "https://App.example.com/", "did you mean https://app.example.com?"),
        ("gateway-origins", "https://a.example:443", "did you mean https://a.example?"),
        ("gateway-origins", "a.example", "did you mean https://a.example?"),
    ],
)
def test_a_bad_value_is_denied_with_what_is_allowed(key: str, value: str, part: str) -> None:
    told = verdict(gated({key: value}))
    assert (told.decision, told.reason) == ("denied", Reason.BAD_VALUE)
    assert part.replace('\\"', '"') in told.message


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "Connection", "Cookie", "Mcp-Session-Id",
     "X-Tokenward-User", "Proxy-Authorization", "X-Forwarded-For", "a b", "a:", "a_b", "", "-a"],
)  # fmt: skip
def test_a_token_goes_into_no_header_that_means_something_else(name: str) -> None:
    told = verdict(gated({"gateway-token": "upstream", "gateway-header": name}))
    assert (told.decision, told.reason) == ("denied", Reason.BAD_VALUE)


def test_a_header_needs_a_token_to_put_in() -> None:
    told = verdict(gated({"gateway-header": "X-GitHub-Token"}))
    assert "needs tokenward.dev/gateway-token" in told.message


def test_what_belongs_to_a_gateway_needs_one() -> None:
    told = verdict(pod({"resource": RESOURCE, "gateway-token": "client"}))
    assert "gateway-token needs tokenward.dev/gateway: <port>:<target>" in told.message


def test_a_gateway_needs_the_resource_that_its_challenge_names() -> None:
    assert "needs tokenward.dev/resource" in verdict(pod({"gateway": "8080:8000"})).message
    under = settings(servers=[{"namespace": "mcp-servers", "name": "github", "resource": RESOURCE}])
    assert verdict(pod({"gateway": "8080:8000"}), under).decision == "injected"


def test_every_fault_of_a_gateway_is_named_at_once() -> None:
    told = verdict(
        gated({"gateway": "x", "gateway-token": "y", "gateway-origins": "z z", "gatway": "1"})
    )
    assert len(told.refusals) == 4
    assert "did you mean tokenward.dev/gateway?" in told.message


def test_the_operator_bounds_streams() -> None:
    under = settings(profiles={"default": {"gatewayStreamMaxSeconds": 600}})
    found = environment(sidecar_of(injected(gated(), under)))
    assert found["TOKENWARD_GATEWAY_STREAM_MAX"] == "600"
    assert "TOKENWARD_GATEWAY_STREAM_MAX" not in environment(sidecar_of(injected(gated())))
    assert "TOKENWARD_GATEWAY_STREAM_MAX" not in environment(sidecar_of(injected(pod(), under)))


def test_the_operator_names_the_proxy_to_apis_and_no_author_does() -> None:
    proxy = "http://proxy.example.com:3128"
    under = settings(profiles={"default": {"apiProxy": proxy}})
    assert environment(sidecar_of(injected(pod(), under)))["TOKENWARD_API_PROXY"] == proxy
    assert "TOKENWARD_API_PROXY" not in environment(sidecar_of(injected(pod())))


@pytest.mark.parametrize(
    "proxy",
    ["proxy.example.com:3128", "https://proxy.example.com:3128", "http://proxy.example.com",
     "http://user:password@proxy.example.com:3128", "http://proxy.example.com:3128/path"],
)  # fmt: skip
def test_a_proxy_is_a_host_and_a_port(proxy: str) -> None:
    with pytest.raises(ConfigurationError):
        settings(profiles={"default": {"apiProxy": proxy}})


# The pod around it.


@pytest.mark.parametrize("field", ["containerPort", "hostPort"])
def test_a_port_of_the_pod_that_the_gateway_needs_is_named(field: str) -> None:
    told = verdict(gated(container={"ports": [{"containerPort": 80} | {field: 8080}]}))
    assert told.reason is Reason.PORT_CLASH
    assert 'container "app" uses port 8080' in told.message
    assert "annotation tokenward.dev/gateway" in told.message


def test_a_node_port_of_the_app_goes_around_the_gateway() -> None:
    told = verdict(gated(container={"ports": [{"containerPort": 8000, "hostPort": 80}]}))
    assert told.reason is Reason.GATEWAY_BYPASSED
    assert "past the gateway" in told.message


def test_an_app_that_declares_its_port_is_told_what_a_service_must_target() -> None:
    told = verdict(gated(container={"ports": [{"containerPort": 8000}]}))
    assert told.decision == "injected"
    assert any("a Service must target port 8080, not 8000" in text for text in told.warnings)
    assert max(map(len, told.warnings)) <= 120


@pytest.mark.parametrize("field", ["startupProbe", "readinessProbe", "livenessProbe"])
@pytest.mark.parametrize("port", [8000, "http"])
def test_an_http_probe_of_the_app_is_denied_with_the_probe_to_write(field: str, port: Any) -> None:
    told = probed(field, {"httpGet": {"path": "/healthz", "port": port}})
    assert told.reason is Reason.GATEWAY_PROBE
    assert f'container "app": {field} asks port 8000' in told.message
    assert 'gateway-open-paths: "/healthz"' in told.message
    assert 'httpGet: {path: "/healthz", port: 8080}' in told.message


@pytest.mark.parametrize("kind", ["tcpSocket", "grpc"])
def test_other_probes_of_the_app_are_denied(kind: str) -> None:
    told = probed("readinessProbe", {kind: {"port": 8000}})
    assert told.reason is Reason.GATEWAY_PROBE
    assert "exec probe" in told.message


def test_a_hook_that_calls_the_app_is_denied() -> None:
    told = probed("lifecycle", {"preStop": {"httpGet": {"path": "/stop", "port": "http"}}})
    assert told.reason is Reason.GATEWAY_PROBE
    assert "lifecycle.preStop" in told.message


def test_a_sidecar_of_the_app_is_looked_at_too() -> None:
    other = {
        "name": "helper", "image": "x", "restartPolicy": "Always",
        "startupProbe": {"tcpSocket": {"port": 8000}},
    }  # fmt: skip
    assert verdict(gated(initContainers=[other])).reason is Reason.GATEWAY_PROBE


def test_the_probe_that_was_proposed_is_accepted() -> None:
    asked = {"httpGet": {"path": "/healthz", "port": 8080}}
    assert probed("readinessProbe", asked, {"gateway-open-paths": "/healthz"}).allowed


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ({"httpGet": {"path": "/healthz", "port": 8080}}, 'asks the gateway for "/healthz"'),
        ({"httpGet": {"port": 8080}}, 'asks the gateway for "/"'),
        ({"httpGet": {"path": "/a", "port": 8080, "scheme": "HTTPS"}}, "speaks plain HTTP"),
        ({"grpc": {"port": 8080}}, "speaks plain HTTP"),
    ],
)
def test_a_probe_that_the_gateway_would_refuse_is_denied(action: Any, part: str) -> None:
    told = probed("readinessProbe", action, {"gateway-open-paths": "/a"})
    assert told.reason is Reason.GATEWAY_PROBE
    assert part in told.message


@pytest.mark.parametrize(
    "action",
    [
        {"exec": {"command": ["true"]}},
        {"httpGet": {"path": "/", "port": 9000}},
        {"httpGet": {"path": "/", "port": 8000, "host": "10.0.0.1"}},
        {"tcpSocket": {"port": 8080}},
    ],
)
def test_other_probes_are_left_alone(action: Any) -> None:
    assert probed("readinessProbe", action).allowed


def test_a_network_policy_that_closes_the_port_lets_the_kubelet_probe_it() -> None:
    asked = {"httpGet": {"path": "/healthz", "port": 8000}}
    assert probed("readinessProbe", asked, {"gateway-app-port": "network-policy"}).allowed


def test_probes_are_not_looked_at_without_a_gateway() -> None:
    container = {"readinessProbe": {"httpGet": {"port": 8000}}}
    assert verdict(pod(container=container)).allowed


# What a person is told.


def test_the_doors_are_explained() -> None:
    told = "\n".join(doors(sidecar_of(injected(gated({"gateway-open-paths": "/healthz"})))))
    assert "hand-out: POST http://127.0.0.1:15500/v1/token" in told
    assert "attach: http://127.0.0.1:15500/upstream/" in told
    assert "a Service must target 8080, with sessionAffinity: ClientIP" in told
    assert "GET and HEAD only: /healthz" in told
    assert "while the app answers port 8000 at the pod's address" in told
    closed = {"gateway-app-port": "network-policy", "gateway-token": "upstream"}
    told = "\n".join(doors(sidecar_of(injected(gated(closed)))))
    assert "a NetworkPolicy has to close port 8000 to other pods; spec.networkPolicy of" in told
    assert "release allows HandOut" in told
    assert not any("gateway" in line for line in doors(sidecar_of(injected(pod()))))


def test_explain_prints_the_doors(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    from webhook.__main__ import main

    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(gated()), "utf-8")
    with pytest.raises(SystemExit) as left:
        main(["inject", "-f", str(file), "--explain"])
    assert left.value.code == 0
    explained = yaml.safe_load(capsys.readouterr().out)
    assert [line.partition(":")[0] for line in explained["doors"]][:3] == [
        "hand-out", "attach", "gateway",
    ]  # fmt: skip
