"""The guard repeats the webhook's checks for whatever reaches a pod after the webhook."""

from typing import Any

import pytest
import yaml

from tests.manifests.guard_settings import settings_under
from tests.manifests.policies import Request
from tests.webhook.pods import injected, pod, sidecar_of, verdict
from webhook.neighbours import STEERING
from webhook.pod_safety import DENIED_CAPABILITIES, PROTECTED_HOST_PATHS
from webhook.reasons import Reason

_PRIVILEGES = [
    {"privileged": True},
    *[{"capabilities": {"add": [name]}} for name in sorted(DENIED_CAPABILITIES)],
    *[{"capabilities": {"add": [name]}} for name in ("sys_ptrace", "cap_all", "Cap_Sys_Admin")],
]


def _with(container: dict[str, Any], field: str) -> dict[str, Any]:
    found = injected(pod())
    found["spec"].setdefault(field, []).append({"name": "late", "image": "x"} | container)
    return found


@pytest.mark.parametrize("context", _PRIVILEGES, ids=str)
@pytest.mark.parametrize("field", ["containers", "initContainers"])
def test_a_privileged_container_is_refused_by_webhook_and_guard(
    guard: dict[str, Any], context: dict[str, Any], field: str
) -> None:
    found = _with({"securityContext": context}, field)
    (refusal,) = Request(found).refusals(guard)
    assert "privileged or adds a capability" in refusal
    assert verdict(found).reason is Reason.PRIVILEGED


@pytest.mark.parametrize("context", _PRIVILEGES, ids=str)
def test_a_privileged_debug_container_is_refused(
    guard: dict[str, Any], context: dict[str, Any]
) -> None:
    found = _with({"securityContext": context}, "ephemeralContainers")
    traces = "PTRACE" in str(context).upper()
    # `kubectl debug` adds SYS_PTRACE by default; it reaches only its own process namespace.
    assert len(Request(found, "UPDATE").refusals(guard)) == (0 if traces else 1)
    found["spec"]["shareProcessNamespace"] = True
    assert len(Request(found, "UPDATE").refusals(guard)) == 1


@pytest.mark.parametrize("name", ["NET_RAW", "net_admin", "CHOWN", "CAP_NET_BIND_SERVICE"])
def test_other_capabilities_pass(guard: dict[str, Any], name: str) -> None:
    context = {"securityContext": {"capabilities": {"add": [name]}}}
    for field in ("containers", "ephemeralContainers"):
        operation = "CREATE" if field == "containers" else "UPDATE"
        assert Request(_with(context, field), operation).refusals(guard) == []
    warnings = verdict(_with(context, "containers")).warnings
    assert bool(warnings) is ("net_" in name.lower() and "BIND" not in name)


@pytest.mark.parametrize(
    "path",
    [
        "/", "//", "/.", "/var", "/var/", "/var/lib", "//var//lib/kubelet", "/var/./lib/kubelet/",
        "/var/lib/kubelet/pods/x/volumes", "/run", "/var/run", "/etc", "/proc/1", "/run/k3s",
        *PROTECTED_HOST_PATHS,
    ],
)  # fmt: skip
def test_a_folder_of_the_node_that_leads_to_credentials_is_refused(
    guard: dict[str, Any], path: str
) -> None:
    found = injected(pod())
    found["spec"]["volumes"].append({"name": "node", "hostPath": {"path": path}})
    (refusal,) = Request(found).refusals(guard)
    assert "folder of the node" in refusal
    assert verdict(found).reason is Reason.HOST_PATH


@pytest.mark.parametrize(
    "path", ["/var/log", "/data", "/var/lib/kubelet-data", "/run/udev", "/sys"]
)
def test_other_folders_of_the_node_pass(guard: dict[str, Any], path: str) -> None:
    found = injected(pod())
    found["spec"]["volumes"].append({"name": "node", "hostPath": {"path": path}})
    assert Request(found).refusals(guard) == []
    assert verdict(found).decision == "injected"


def test_a_container_as_the_sidecars_user_is_refused(guard: dict[str, Any]) -> None:
    context = {"securityContext": {"runAsUser": 15500}}
    for field, operation in (
        ("containers", "CREATE"),
        ("initContainers", "CREATE"),
        ("ephemeralContainers", "UPDATE"),
    ):
        assert Request(_with(context, field), operation).refusals(guard) == [
            "tokenward: another container runs as the sidecar's user"
        ]
    found = injected(pod())
    found["spec"]["securityContext"] = {"runAsUser": 15500}
    assert len(Request(found).refusals(guard)) == 1


_ENTRIES = [
    {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "github-tokenward"}}}]},
    {"envFrom": [{"secretRef": {"name": "github-tokenward"}}]},
]


@pytest.mark.parametrize("entries", _ENTRIES)
@pytest.mark.parametrize("field", ["containers", "initContainers", "ephemeralContainers"])
def test_variables_from_the_sidecars_secret_are_refused(
    guard: dict[str, Any], entries: dict[str, Any], field: str
) -> None:
    operation = "UPDATE" if field == "ephemeralContainers" else "CREATE"
    assert Request(_with(entries, field), operation).refusals(guard) == [
        "tokenward: another container takes variables from the sidecar's Secret"
    ]
    text = str(entries).replace("github-tokenward", "other")
    assert Request(_with(yaml.safe_load(text), field), operation).refusals(guard) == []


@pytest.mark.parametrize(
    "source",
    [
        {"secret": {"secretName": "github-tokenward"}},
        {"projected": {"sources": [{"secret": {"name": "github-tokenward"}}]}},
    ],
)
def test_another_volume_with_the_credential_is_refused(
    guard: dict[str, Any], source: dict[str, Any]
) -> None:
    found = injected(pod())
    found["spec"]["volumes"].append({"name": "late"} | source)
    assert Request(found).refusals(guard) == [
        "tokenward: another volume holds the sidecar's credential"
    ]


def test_another_volume_of_the_same_signer_or_driver_is_refused(
    guard: dict[str, Any], configuration: dict[str, Any]
) -> None:
    for identity in ({"source": "podCertificate"}, {"source": "csi", "driver": "x.io"}):
        found = injected(pod(), settings_under(configuration, identity=identity))
        (own,) = (v for v in found["spec"]["volumes"] if v["name"] == "tokenward-credential")
        found["spec"]["volumes"].append(own | {"name": "late"})
        assert len(Request(found).refusals(guard)) == 1


# Shared processes, as far as a profile allows them


def test_shared_processes_need_a_profile_that_allows_them(
    second: dict[str, Any], configuration: dict[str, Any]
) -> None:
    found = injected(pod(), settings_under(configuration))
    found["spec"]["shareProcessNamespace"] = True
    (refusal,) = Request(found, params=configuration).refusals(second)
    assert "shareProcessNamespace" in refusal
    text = configuration["data"]["webhook.yaml"]
    allowed = text.replace("default: {}", "default:\n    allowSharedProcessNamespace: true")
    params = {"data": {"webhook.yaml": allowed}}
    assert Request(found, params=params).refusals(second) == []


# Neighbours

_ADDED: list[tuple[str, dict[str, Any]]] = [
    ("env", {"name": "AZURE_CLIENT_ID", "value": "x"}),
    ("env", {"name": "DD_ENTITY_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}),
    ("volumeMounts", {"name": "token", "mountPath": "/var/run/secrets/azure/tokens"}),
]
_NEIGHBOURS = (
    "neighbours:\n  environment:\n    - AZURE_\n    - DD_\n"
    "  mounts:\n    - /var/run/secrets/azure\n"
)


@pytest.mark.parametrize(("field", "entry"), _ADDED)
def test_a_neighbours_addition_passes_only_where_the_operator_names_it(
    guard: dict[str, Any],
    second: dict[str, Any],
    configuration: dict[str, Any],
    field: str,
    entry: dict[str, Any],
) -> None:
    text = configuration["data"]["webhook.yaml"] + _NEIGHBOURS
    named = yaml.safe_load(_NEIGHBOURS)
    for at in (0, 1, -1):
        found = injected(pod(), settings_under(configuration))
        entries = sidecar_of(found)[field]
        entries.insert(at if at >= 0 else len(entries), entry)
        assert Request(found).refusals(guard) == []
        assert len(Request(found, params=configuration).refusals(second)) == 1
        params = {"data": {"webhook.yaml": text}}
        assert Request(found, params=params).refusals(second) == []
        assert verdict(found, settings_under(configuration)).reason is Reason.RESERVED_NAME
        assert verdict(found, settings_under(configuration, **named)).decision == "injected"


@pytest.mark.parametrize("name", [*STEERING, "PYTHONPATH", "ld_preload", "SSL_CERT_FILE"])
def test_no_neighbour_steers_the_sidecar(
    guard: dict[str, Any], configuration: dict[str, Any], name: str
) -> None:
    found = injected(pod(), settings_under(configuration))
    sidecar_of(found)["env"].append({"name": name, "value": "x"})
    assert Request(found).refusals(guard) == ["tokenward: the sidecar's environment was changed"]
    assert verdict(found, settings_under(configuration)).decision == "denied"


@pytest.mark.parametrize(
    "path",
    [
        "/usr/lib", "/opt/tokenward", "/etc/ssl", "/", "/var/run", "/var/run/", "/var/run/secrets",
        "/var/run/tokenward", "/var/run/tokenward/credential", "/var/run/tokenward/",
        "/var/run//tokenward", "/var/run/./tokenward", "/var/run/x/../tokenward",
        "/var/run/secrets/kubernetes.io", "/var/run/secrets/kubernetes.io/serviceaccount",
    ],
)  # fmt: skip
def test_no_neighbour_mounts_over_what_the_sidecar_reads(
    guard: dict[str, Any], configuration: dict[str, Any], path: str
) -> None:
    found = injected(pod(), settings_under(configuration))
    sidecar_of(found)["volumeMounts"].append({"name": "late", "mountPath": path})
    assert Request(found).refusals(guard) == ["tokenward: the sidecar's mounts were changed"]
    assert verdict(found, settings_under(configuration)).decision == "denied"


def test_a_further_dropped_capability_loosens_nothing(
    guard: dict[str, Any], configuration: dict[str, Any]
) -> None:
    under = settings_under(configuration)
    found = injected(pod(), under)
    sidecar_of(found)["securityContext"]["capabilities"]["drop"].append("NET_RAW")
    assert Request(found).refusals(guard) == []
    assert verdict(found, under).reason is Reason.ALREADY_INJECTED
