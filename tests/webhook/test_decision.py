"""Who is injected, who is left alone, who is refused, and under which name."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.webhook.pods import (
    environment,
    injected,
    pod,
    recorded_pod,
    settings,
    sidecar_of,
    verdict,
)
from webhook import pod_view
from webhook.evaluate import evaluate
from webhook.reasons import Reason


@pytest.mark.parametrize(
    ("annotation", "namespace_opted_in", "decision", "reason"),
    [
        (None, False, "skipped", Reason.NOT_REQUESTED),
        ("true", False, "injected", Reason.INJECTED),
        ("false", False, "skipped", Reason.OPTED_OUT),
        (None, True, "injected", Reason.INJECTED),
        ("true", True, "injected", Reason.INJECTED),
        ("false", True, "skipped", Reason.OPTED_OUT),
        ("yes", True, "denied", Reason.BAD_VALUE),
    ],
)
def test_the_pods_word_beats_its_namespaces(
    annotation: str | None, namespace_opted_in: bool, decision: str, reason: Reason
) -> None:
    made = pod()
    del made["metadata"]["annotations"]["tokenward.dev/inject"]
    if annotation is not None:
        made["metadata"]["annotations"]["tokenward.dev/inject"] = annotation
    told = verdict(made, namespace_opted_in=namespace_opted_in)
    assert (told.decision, told.reason) == (decision, reason)


def test_an_opted_out_pod_is_not_hurt_by_its_other_faults() -> None:
    told = verdict(pod({"inject": "false", "nonsense": "x"}, hostNetwork=True))
    assert told.decision == "skipped"


@pytest.mark.parametrize("missing", [{}, {"metadata": None}, {"metadata": {"annotations": None}}])
def test_a_pod_without_annotations_is_left_alone(missing: dict[str, Any]) -> None:
    told = verdict({"spec": {"containers": []}} | missing)
    assert (told.decision, told.operations) == ("skipped", ())


@pytest.mark.parametrize(
    "namespace", ["kube-system", "kube-public", "kube-node-lease", "tokenward-system", "legacy"]
)
def test_system_and_excluded_namespaces_are_never_injected(namespace: str) -> None:
    under = settings(neverInject=["tokenward-system", "legacy"])
    told = evaluate(pod_view.read(pod()), namespace, under, namespace_opted_in=True)
    assert told.reason is Reason.NAMESPACE_NEVER_INJECTED
    assert told.warnings


def test_a_mirror_pod_is_left_alone() -> None:
    mirror = pod()
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "abc"
    assert verdict(mirror).reason is Reason.MIRROR_POD


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"os": {"name": "windows"}}, Reason.WINDOWS),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, Reason.WINDOWS),
        ({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}, Reason.WINDOWS),
        ({"hostNetwork": True}, Reason.HOST_NAMESPACE),
        ({"hostPID": True}, Reason.HOST_NAMESPACE),
        ({"hostIPC": True}, Reason.HOST_NAMESPACE),
        ({"shareProcessNamespace": True}, Reason.SHARED_PROCESS_NAMESPACE),
        ({"securityContext": {"runAsUser": 15500}}, Reason.SAME_USER),
    ],
)
def test_a_pod_that_would_expose_the_credential_is_refused(
    spec: dict[str, Any], reason: Reason
) -> None:
    told = verdict(pod(**spec))
    assert (told.decision, told.reason) == ("denied", reason)


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"privileged": True}, Reason.PRIVILEGED),
        ({"capabilities": {"add": ["SYS_PTRACE"]}}, Reason.PRIVILEGED),
        ({"capabilities": {"add": ["CAP_SYS_PTRACE"]}}, Reason.PRIVILEGED),
        ({"capabilities": {"add": ["ALL"]}}, Reason.PRIVILEGED),
        ({"runAsUser": 15500}, Reason.SAME_USER),
    ],
)
@pytest.mark.parametrize("init", [False, True])
def test_a_container_that_could_reach_the_sidecar_is_refused(
    context: dict[str, Any], reason: Reason, init: bool
) -> None:
    exposed = {"name": "app", "image": "x", "securityContext": context}
    made = pod(initContainers=[exposed | {"name": "setup"}]) if init else pod(container=exposed)
    assert verdict(made).reason is reason


def test_a_profile_may_allow_a_shared_process_namespace() -> None:
    under = settings(profiles={"default": {"allowSharedProcessNamespace": True}})
    injected(pod(shareProcessNamespace=True), under)


@pytest.mark.parametrize(
    "spec",
    [
        {"securityContext": {"runAsUser": 0}},
        {"hostUsers": False},
        {"securityContext": {"seLinuxOptions": {"level": "s0"}, "fsGroup": 1}},
        {"serviceAccountName": "default"},
        {"automountServiceAccountToken": False},
        {"automountServiceAccountToken": True},
        {"restartPolicy": "Never"},
        {"restartPolicy": "OnFailure"},
        {"os": {"name": "linux"}},
    ],
)
def test_an_ordinary_pod_is_injected_and_its_own_fields_stay(spec: dict[str, Any]) -> None:
    found = injected(pod(**spec))
    assert {key: found["spec"][key] for key in spec} == spec


def _named(**metadata: Any) -> str:
    made = pod()
    made["metadata"] = {"annotations": made["metadata"]["annotations"]} | metadata
    return environment(sidecar_of(injected(made)))["TOKENWARD_SPIFFE_ID"].rsplit("/", 1)[1]


def _owner(kind: str, name: str, **more: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "controller": True} | more]


def test_the_annotation_names_the_workload_before_anything_else() -> None:
    found = injected(pod({"server": "slack"}, labels={"app.kubernetes.io/name": "other"}))
    identity = environment(sidecar_of(found))["TOKENWARD_SPIFFE_ID"]
    assert identity == "spiffe://example.org/ns/mcp-servers/mcpserver/slack"


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        (
            {
                "labels": {"app.kubernetes.io/name": "by-label"},
                "ownerReferences": _owner("StatefulSet", "by-owner"),
            },
            "by-label",
        ),
        (
            {
                "labels": {"pod-template-hash": "84b9dd568f"},
                "ownerReferences": _owner("ReplicaSet", "github-mcp-84b9dd568f"),
            },
            "github-mcp",
        ),
        (
            {
                "labels": {"rollouts-pod-template-hash": "5d"},
                "ownerReferences": _owner("ReplicaSet", "github-5d"),
            },
            "github",
        ),
        ({"ownerReferences": _owner("ReplicaSet", "bare-replicas")}, "bare-replicas"),
        ({"name": "db-0", "ownerReferences": _owner("StatefulSet", "db")}, "db"),
        ({"ownerReferences": _owner("Job", "once")}, "once"),
        ({"ownerReferences": _owner("Job", "nightly-29923492")}, "nightly"),
        ({"name": "x", "ownerReferences": _owner("Node", "n", controller=False)}, "x"),
        ({"name": "alone"}, "alone"),
        ({"generateName": "gen-"}, "gen"),
    ],
)
def test_the_workload_is_named_by_label_then_owner_then_pod(
    metadata: dict[str, Any], name: str
) -> None:
    assert _named(**metadata) == name


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"app.kubernetes.io/name": "GitHub_MCP"}},
        {"name": "pod.with.dots"},
        {"name": "a" * 64},
        {},
    ],
)
def test_a_name_that_is_no_label_is_refused_with_the_way_out(metadata: dict[str, Any]) -> None:
    made = pod()
    made["metadata"] = {"annotations": made["metadata"]["annotations"]} | metadata
    told = verdict(made)
    assert told.reason is Reason.NO_SERVER_NAME
    assert "tokenward.dev/server" in told.message


def test_the_namespace_is_the_requests_and_a_pod_that_says_another_is_refused() -> None:
    made = pod()
    made["metadata"]["namespace"] = "victims"
    assert verdict(made).reason is Reason.NAMESPACE_MISMATCH


def test_a_container_list_with_a_stranger_is_refused_with_the_real_names() -> None:
    for key in ("containers", "skip-containers"):
        told = verdict(pod({key: "app,sever"}, initContainers=[{"name": "setup", "image": "x"}]))
        assert told.reason is Reason.NO_SUCH_CONTAINER
        assert "app, setup" in told.message


@pytest.mark.parametrize("field", ["containerPort", "hostPort"])
@pytest.mark.parametrize(("port", "key"), [(15500, "tokenward.dev/port"), (15501, "ops-port")])
def test_a_port_of_ours_in_the_app_is_refused_with_the_annotation_that_moves_it(
    field: str, port: int, key: str
) -> None:
    told = verdict(pod(container={"ports": [{"containerPort": 80} | {field: port}]}))
    assert told.reason is Reason.PORT_CLASH
    assert key in told.message
    injected(pod({"port": "16000", "ops-port": "16001"}, container={"ports": [{field: port}]}))


@pytest.mark.parametrize("path", ["/var/run/tokenward", "/var/run/tokenward/credential/"])
def test_an_app_that_mounts_our_path_is_refused(path: str) -> None:
    made = pod(
        container={"volumeMounts": [{"name": "x", "mountPath": path}]},
        volumes=[{"name": "x", "emptyDir": {}}],
    )
    assert verdict(made).reason is Reason.RESERVED_MOUNT


@pytest.mark.parametrize(
    "volume", ["tokenward-credential", "tokenward-authserver-ca", "tokenward-no-api-token"]
)
@pytest.mark.parametrize("mount", [{}, {"subPath": "tls.key"}])
def test_an_app_that_mounts_our_volume_is_refused(volume: str, mount: dict[str, str]) -> None:
    mounts = [{"name": volume, "mountPath": "/stolen"} | mount]
    told = verdict(pod(container={"volumeMounts": mounts}))
    assert told.reason is Reason.RESERVED_MOUNT


@pytest.mark.parametrize(
    "volume", ["tokenward-credential", "tokenward-authserver-ca", "tokenward-no-api-token"]
)
def test_a_volume_of_our_name_is_refused(volume: str) -> None:
    told = verdict(pod(volumes=[{"name": volume, "emptyDir": {}}]))
    assert told.reason is Reason.RESERVED_NAME


@pytest.mark.parametrize(
    "source",
    [
        {"secret": {"secretName": "github-tokenward"}},
        {"projected": {"sources": [{"secret": {"name": "github-tokenward"}}]}},
    ],
)
def test_an_app_volume_of_the_credentials_secret_is_refused(source: dict[str, Any]) -> None:
    told = verdict(pod(volumes=[{"name": "mine"} | source]))
    assert told.reason is Reason.CREDENTIAL_REACHED


@pytest.mark.parametrize(
    "container",
    [
        {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "github-tokenward"}}}]},
        {"envFrom": [{"secretRef": {"name": "github-tokenward"}}]},
    ],
)
def test_app_variables_from_the_credentials_secret_are_refused(container: dict[str, Any]) -> None:
    assert verdict(pod(container=container)).reason is Reason.CREDENTIAL_REACHED


def test_an_app_volume_of_the_identitys_csi_driver_is_refused() -> None:
    under = settings(identity={"source": "csi", "driver": "csi.spiffe.io"})
    told = verdict(pod(volumes=[{"name": "mine", "csi": {"driver": "csi.spiffe.io"}}]), under)
    assert told.reason is Reason.CREDENTIAL_REACHED


def test_an_app_volume_of_the_identitys_signer_is_refused() -> None:
    under = settings(identity={"source": "podCertificate"})
    certificate = {"podCertificate": {"signerName": "tokenward.dev/workload"}}
    told = verdict(pod(volumes=[{"name": "m", "projected": {"sources": [certificate]}}]), under)
    assert told.reason is Reason.CREDENTIAL_REACHED


def test_a_proxy_that_does_not_spare_loopback_is_warned_about() -> None:
    def warned(*entries: tuple[str, str]) -> tuple[str, ...]:
        env = [{"name": name, "value": value} for name, value in entries]
        return verdict(pod(container={"env": env})).warnings

    assert "NO_PROXY" in warned(("HTTP_PROXY", "http://p"))[0]
    assert "NO_PROXY" in warned(("http_proxy", "http://p"), ("NO_PROXY", "localhost"))[0]
    assert not warned(("HTTP_PROXY", "http://p"), ("NO_PROXY", "a, 127.0.0.1"))
    assert not warned(("HTTP_PROXY", "http://p"), ("no_proxy", "*"))
    assert all(len(text) <= 120 for text in warned(("ALL_PROXY", "http://p")))


def test_the_recorded_daemon_set_on_the_host_network_is_refused() -> None:
    told = verdict(recorded_pod("pod-create-daemonset-host-network"))
    assert told.reason is Reason.HOST_NAMESPACE


# Capabilities, folders of the node, shared names


@pytest.mark.parametrize(
    "name", ["all", "cap_all", "sys_ptrace", "Cap_Bpf", "SYS_ADMIN", "PERFMON"]
)
def test_a_capability_is_recognised_in_any_spelling(name: str) -> None:
    context = {"capabilities": {"add": ["CHOWN", name]}}
    verdict_of = verdict(pod(container={"securityContext": context}))
    assert verdict_of.reason is Reason.PRIVILEGED
    assert name.upper().removeprefix("CAP_") in verdict_of.message


def test_a_container_that_reads_loopback_is_injected_with_a_warning() -> None:
    context = {"capabilities": {"add": ["net_raw"]}}
    (warning,) = verdict(pod(container={"securityContext": context})).warnings
    assert "NET_RAW" in warning


def test_an_instance_that_the_name_label_does_not_tell_is_warned_about() -> None:
    labels = {"app.kubernetes.io/name": "mcpserver", "app.kubernetes.io/instance": "github"}
    (warning,) = verdict(pod(labels=labels)).warnings
    assert warning.endswith("set tokenward.dev/server if others share it")
    assert "mcpserver" in warning
    assert "github" in warning
    assert verdict(pod({"server": "mcpserver"}, labels=labels)).warnings == ()
    labels["app.kubernetes.io/instance"] = "mcpserver"
    assert verdict(pod(labels=labels)).warnings == ()
    del labels["app.kubernetes.io/instance"]
    assert verdict(pod(labels=labels)).warnings == ()


@pytest.mark.parametrize(
    ("job", "server"),
    [
        ("report-29404020", "report"),
        ("report-20261128", "report-20261128"),
        ("report-2940402", "report-2940402"),
    ],
)
def test_only_the_minute_of_a_schedule_is_left_out_of_a_jobs_name(job: str, server: str) -> None:
    made = pod()
    made["metadata"]["ownerReferences"] = [{"kind": "Job", "name": job, "controller": True}]
    identity = environment(sidecar_of(injected(made)))["TOKENWARD_SPIFFE_ID"]
    assert identity.endswith(f"/mcpserver/{server}")


# Neighbours


@pytest.mark.parametrize(
    ("field", "entry", "who"),
    [
        (
            "env",
            {"name": "AZURE_TENANT_ID", "value": "x"},
            "azure.workload.identity/skip-containers",
        ),
        ("env", {"name": "AWS_ROLE_ARN", "value": "x"}, "eks.amazonaws.com/skip-containers"),
        ("env", {"name": "DD_AGENT_HOST", "value": "x"}, "Datadog"),
        ("env", {"name": "TZ", "value": "x"}, "neighbours"),
        (
            "volumeMounts",
            {"name": "t", "mountPath": "/var/run/secrets/azure/tokens"},
            "Azure Workload Identity",
        ),
    ],
)
def test_the_denial_names_what_another_webhook_added_and_who_probably_did(
    field: str, entry: dict[str, Any], who: str
) -> None:
    found = injected(pod())
    sidecar_of(found)[field].append(entry)
    told = verdict(found)
    assert told.reason is Reason.RESERVED_NAME
    assert f"differs in {field})" in told.message
    assert str(entry.get("mountPath") or entry["name"]) in told.message
    assert who in told.message


def test_a_neighbours_variable_never_replaces_one_of_ours() -> None:
    under = settings(neighbours={"environment": ["AZURE_"]})
    second = {"name": "TOKENWARD_ISSUER", "value": "https://evil.example.com"}
    changes: list[Callable[[list[Any]], Any]] = [
        lambda env: env.append(second),
        lambda env: env.reverse(),
        lambda env: env.pop(),
    ]
    for change in changes:
        found = injected(pod(), under)
        change(sidecar_of(found)["env"])
        assert verdict(found, under).decision == "denied"


def test_lists_of_ours_that_grew_are_not_ours() -> None:
    grown = injected(pod())
    volume = next(v for v in grown["spec"]["volumes"] if v["name"] == "tokenward-credential")
    volume["secret"]["items"].append({"key": "ca.crt", "path": "ca.crt"})
    assert verdict(grown).reason is Reason.RESERVED_NAME
    probed = injected(pod())
    sidecar_of(probed)["ports"].append({"containerPort": 8080})
    assert "differs in ports)" in verdict(probed).message


@pytest.mark.parametrize("profile", [None, {}, {"type": "RuntimeDefault"}, {"type": "Localhost"}])
def test_app_armor_profiles_of_platforms_are_kept(profile: dict[str, Any] | None) -> None:
    found = injected(pod())
    sidecar_of(found)["securityContext"]["appArmorProfile"] = profile
    assert verdict(found).reason is Reason.ALREADY_INJECTED


# Servers that the controller names


def test_a_known_server_needs_no_annotation_for_its_resource() -> None:
    resource = "https://github.mcp.example.com/mcp"
    one = {"namespace": "mcp-servers", "name": "github", "resource": resource}
    under = settings(servers=[one | {"namespace": "others", "resource": "https://x/"}, one])
    assert environment(sidecar_of(injected(pod(), under)))["TOKENWARD_RESOURCE"] == resource
    own = pod({"resource": "https://own.example.com/mcp"})
    values = environment(sidecar_of(injected(own, under)))
    assert values["TOKENWARD_RESOURCE"] == "https://own.example.com/mcp"


def test_a_server_that_the_list_does_not_have_yet_waits() -> None:
    under = settings(servers=[])
    told = verdict(pod(), under)
    assert told.reason is Reason.SERVER_NOT_KNOWN
    assert "not known yet" in told.message
    own = pod({"resource": "https://own.example.com/mcp"})
    assert verdict(own, under).decision == "injected"
    assert verdict(pod()).decision == "injected"
