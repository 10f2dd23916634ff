"""The guard's CEL, evaluated on pods as the webhook makes them and as somebody else left them."""

import copy
from typing import Any

import pytest

from tests.manifests.conftest import Rendered
from tests.manifests.guard_settings import settings_under
from tests.manifests.objects import find
from tests.manifests.policies import Request
from tests.support.pod_samples import CREATED, TAMPERED, after_plugins
from tests.webhook.pods import CA, environment, injected, pod, recorded_pod, sidecar_of, volume_of
from webhook.settings import Settings

_SOURCES: dict[str, dict[str, Any]] = {
    "secret": {"source": "secret"},
    "podCertificate": {"source": "podCertificate"},
    "csi": {"source": "csi", "driver": "csi.spiffe.io"},
}


@pytest.fixture
def shipped(configuration: dict[str, Any]) -> Settings:
    return settings_under(configuration)


@pytest.mark.parametrize("name", CREATED)
@pytest.mark.parametrize("source", _SOURCES)
def test_what_the_webhook_makes_passes(
    guard: dict[str, Any], configuration: dict[str, Any], name: str, source: str
) -> None:
    under = settings_under(configuration, identity=_SOURCES[source])
    assert Request(injected(recorded_pod(name), under)).refusals(guard) == []


def test_what_plugins_and_other_webhooks_add_passes(
    guard: dict[str, Any], shipped: Settings
) -> None:
    assert Request(after_plugins(injected(pod(), shipped))).refusals(guard) == []


@pytest.mark.parametrize(
    "made",
    [
        {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "image": "x"}]}},
        recorded_pod("pod-create-daemonset-host-network")
        | {"metadata": {"name": "n", "labels": {}, "annotations": {"a": "b"}}},
        {
            "metadata": {"annotations": {"tokenward.dev/inject": "false"}},
            "spec": {
                "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                "initContainers": [{"name": "i"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "hostNetwork": True,
            },
        },
    ],
)
def test_pods_that_did_not_opt_in_are_never_hurt(guard: dict[str, Any], made: Any) -> None:
    assert Request(made).refusals(guard) == []


def test_an_opted_in_pod_without_the_sidecar_is_refused(guard: dict[str, Any]) -> None:
    assert "webhook did not run" in Request(pod()).refusals(guard)[0]


def test_a_silent_pod_of_an_opted_in_namespace_needs_the_sidecar(guard: dict[str, Any]) -> None:
    silent = {"metadata": {"name": "x"}, "spec": {"containers": []}}
    labels = {"tokenward.dev/inject": "enabled"}
    assert Request(silent, namespace_labels=labels).refusals(guard)
    out = silent | {"metadata": {"annotations": {"tokenward.dev/inject": "false"}}}
    assert Request(out, namespace_labels=labels).refusals(guard) == []
    mirror = silent | {"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}
    assert Request(mirror, namespace_labels=labels).refusals(guard) == []


# A sidecar of an earlier version has no hook, and nothing foreign runs in one without it.
_LEFT_TO_THE_WEBHOOK = {"postStart"}


@pytest.mark.parametrize("field", sorted(TAMPERED.keys() - _LEFT_TO_THE_WEBHOOK))
def test_a_sidecar_changed_by_somebody_else_is_refused(
    guard: dict[str, Any], rendered: Rendered, configuration: dict[str, Any], field: str
) -> None:
    found = injected(pod(), settings_under(configuration))
    container = sidecar_of(found)
    for member, value in TAMPERED[field].items():
        container[member] = value
        if value is None:
            del container[member]
    second = find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-guard-configuration")
    request = Request(found, params=configuration)
    assert request.refusals(guard) + request.refusals(second)


@pytest.mark.parametrize(
    "change",
    [
        {"allowPrivilegeEscalation": True},
        {"readOnlyRootFilesystem": False},
        {"runAsNonRoot": False},
        {"runAsUser": 0},
        {"privileged": True},
        {"capabilities": {"drop": []}},
        {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
        {"seccompProfile": {"type": "Unconfined"}},
        {"procMount": "Unmasked"},
        {"appArmorProfile": {"type": "Unconfined"}},
    ],
)
def test_a_loosened_security_context_is_refused(
    guard: dict[str, Any], shipped: Settings, change: dict[str, Any]
) -> None:
    found = injected(pod(), shipped)
    sidecar_of(found)["securityContext"].update(change)
    assert Request(found).refusals(guard) == [
        "tokenward: the sidecar's security context was loosened"
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "PYTHONPATH", "value": "/stolen"},
        {"name": "LD_PRELOAD", "value": "/stolen.so"},
        {"name": "TOKENWARD_SCOPES", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}},
        {"name": "TOKENWARD_CREDENTIAL_DIR", "value": "/stolen"},
        {"name": "TOKENWARD_AUTHSERVER_CA_FILE", "value": "/stolen"},
        {"name": "TOKENWARD_AUTHSERVER_URL", "value": "https://evil.example.com"},
        {"name": "TOKENWARD_ISSUER", "value": "https://evil.example.com"},
    ],
)
@pytest.mark.parametrize("instead", [False, True])
def test_a_variable_added_or_put_in_anothers_place_is_refused(
    guard: dict[str, Any],
    second: dict[str, Any],
    configuration: dict[str, Any],
    entry: dict[str, Any],
    instead: bool,
) -> None:
    found = injected(pod(), settings_under(configuration))
    container = sidecar_of(found)
    if instead:
        container["env"] = [e for e in container["env"] if e["name"] != entry["name"]]
    container["env"].append(entry)
    request = Request(found, params=configuration)
    assert request.refusals(guard) + request.refusals(second)


@pytest.mark.parametrize("image", ["registry.example.com/s:1", f"x@sha256:{'a' * 64}:latest"])
def test_an_image_without_a_digest_is_refused(
    guard: dict[str, Any], shipped: Settings, image: str
) -> None:
    found = injected(pod(), shipped)
    sidecar_of(found)["image"] = image
    assert Request(found).refusals(guard) == [
        "tokenward: the sidecar's image is not pinned by digest"
    ]


def test_a_second_sidecar_is_refused(guard: dict[str, Any], shipped: Settings) -> None:
    found = injected(pod(), shipped)
    found["spec"]["initContainers"].append(copy.deepcopy(sidecar_of(found)))
    assert Request(found).refusals(guard)


def test_removed_marks_are_refused(guard: dict[str, Any], shipped: Settings) -> None:
    for field, key in (
        ("labels", "tokenward.dev/injected"),
        ("annotations", "tokenward.dev/status"),
        ("annotations", "tokenward.dev/authserver-ca"),
    ):
        found = injected(pod(), shipped)
        del found["metadata"][field][key]
        assert len(Request(found).refusals(guard)) == 1


def test_the_label_alone_opens_nothing(guard: dict[str, Any]) -> None:
    forged = {
        "metadata": {"labels": {"tokenward.dev/injected": "true"}},
        "spec": {"containers": [{"name": "a"}]},
    }
    assert len(Request(forged).refusals(guard)) == 1


def test_an_identity_of_another_namespace_is_refused(
    guard: dict[str, Any], shipped: Settings
) -> None:
    found = injected(pod(), shipped)
    assert Request(found, namespace="victims").refusals(guard) == [
        "tokenward: the sidecar's identity is not one of this namespace"
    ]


@pytest.mark.parametrize(
    "source",
    [
        {"emptyDir": {}},
        {"projected": {"sources": [{}]}},
        {"projected": {"sources": []}},
        {"projected": {"sources": [{"secret": {"name": "x"}}]}},
    ],
)
def test_a_credential_source_that_was_dropped_or_changed_is_refused(
    guard: dict[str, Any], shipped: Settings, source: dict[str, Any]
) -> None:
    found = injected(pod(), shipped)
    volume = volume_of(found, "tokenward-credential")
    volume.clear()
    volume.update({"name": "tokenward-credential"} | source)
    assert "volumes were changed" in Request(found).refusals(guard)[0]


@pytest.mark.parametrize("volume", ["credential", "authserver-ca", "no-api-token"])
@pytest.mark.parametrize("field", ["initContainers", "containers", "ephemeralContainers"])
def test_no_other_container_mounts_the_sidecars_volumes(
    guard: dict[str, Any], shipped: Settings, field: str, volume: str
) -> None:
    found = injected(pod(), shipped)
    thief = {"name": "t", "volumeMounts": [{"name": f"tokenward-{volume}", "mountPath": "/t"}]}
    found["spec"].setdefault(field, []).append(thief)
    operation = "UPDATE" if field == "ephemeralContainers" else "CREATE"
    assert Request(found, operation).refusals(guard) == [
        "tokenward: no container but the sidecar may mount its volumes"
    ]


def test_our_volume_names_without_the_sidecar_are_refused(guard: dict[str, Any]) -> None:
    made = {
        "metadata": {"name": "x"},
        "spec": {
            "containers": [{"name": "a"}],
            "volumes": [{"name": "tokenward-credential", "csi": {"driver": "x"}}],
        },
    }
    assert Request(made).refusals(guard) == [
        "tokenward: these volume names are reserved for the sidecar"
    ]


@pytest.mark.parametrize("field", ["containers", "ephemeralContainers"])
def test_our_container_name_elsewhere_is_refused(
    guard: dict[str, Any], shipped: Settings, field: str
) -> None:
    found = injected(pod(), shipped)
    found["spec"].setdefault(field, []).append({"name": "tokenward-sidecar"})
    assert "reserved" in Request(found).refusals(guard)[0]


def test_a_debug_container_may_not_enter_the_sidecar(
    guard: dict[str, Any], shipped: Settings
) -> None:
    found = injected(pod(), shipped)
    debugger = {"name": "d", "targetContainerName": "tokenward-sidecar"}
    found["spec"]["ephemeralContainers"] = [debugger]
    assert len(Request(found, "UPDATE").refusals(guard)) == 1
    debugger["targetContainerName"] = "app"
    assert Request(found, "UPDATE").refusals(guard) == []


def test_debugging_a_pod_that_was_never_injected_stays_possible(guard: dict[str, Any]) -> None:
    update = recorded_pod("pod-update-ephemeralcontainers")
    assert Request(update, "UPDATE").refusals(guard) == []


@pytest.mark.parametrize("name", ["hostNetwork", "hostPID", "hostIPC"])
def test_host_namespaces_set_after_us_are_refused(
    guard: dict[str, Any], shipped: Settings, name: str
) -> None:
    found = injected(pod(), shipped)
    found["spec"][name] = True
    assert "its node" in Request(found).refusals(guard)[0]


# The second half: against the configuration


def test_what_was_made_under_the_configuration_passes(
    second: dict[str, Any], configuration: dict[str, Any], shipped: Settings
) -> None:
    assert Request(injected(pod(), shipped), params=configuration).refusals(second) == []


def test_pods_without_the_sidecar_are_not_looked_at(
    second: dict[str, Any], configuration: dict[str, Any]
) -> None:
    bare = {"metadata": {"name": "x"}, "spec": {"containers": []}}
    assert Request(bare, params=configuration).refusals(second) == []


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"image": f"registry.example.com/evil@sha256:{'b' * 64}"}, "image"),
        ({"issuer": "https://evil.example.com"}, "issuer"),
        ({"trustDomain": "evil.example"}, "trust domain"),
        ({"authserver": {"url": "https://evil.example.com", "caFile": CA}}, "authserver"),
        ({"profiles": {"default": {"apiProxy": "http://evil.example.com:3128"}}}, "proxy"),
    ],
)
def test_what_was_made_under_another_configuration_is_refused(
    second: dict[str, Any], configuration: dict[str, Any], changes: dict[str, Any], refused: str
) -> None:
    found = injected(pod(), settings_under(configuration, **changes))
    (told,) = Request(found, params=configuration).refusals(second)
    assert refused in told


def test_the_proxy_that_a_profile_names_passes(
    second: dict[str, Any], guard: dict[str, Any], configuration: dict[str, Any]
) -> None:
    named = copy.deepcopy(configuration)
    named["data"]["webhook.yaml"] += (
        "profiles:\n  default:\n    apiProxy: http://proxy.example.com:3128\n"
    )
    found = injected(pod(), settings_under(named))
    assert environment(sidecar_of(found))["TOKENWARD_API_PROXY"] == "http://proxy.example.com:3128"
    assert Request(found, params=named).refusals(second) == []
    assert Request(found).refusals(guard) == []


def test_an_image_that_only_begins_like_ours_is_refused(
    second: dict[str, Any], configuration: dict[str, Any], shipped: Settings
) -> None:
    found = injected(pod(), shipped)
    sidecar_of(found)["image"] = shipped.image.partition("@")[0]
    assert Request(found, params=configuration).refusals(second)
