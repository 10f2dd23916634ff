"""What an injected pod looks like, and that injecting it again changes nothing."""

import copy
import json
from typing import Any

import pytest

from chassis.version import VERSION
from sidecar import wait_until_ready
from tests.support.pod_samples import CREATED, TAMPERED, after_plugins
from tests.webhook.pods import (
    CA,
    IMAGE,
    SIDECAR,
    environment,
    injected,
    patched,
    pod,
    recorded_pod,
    settings,
    sidecar_of,
    verdict,
    volume_of,
)
from webhook.reasons import Reason


@pytest.mark.parametrize("name", CREATED)
def test_every_recorded_pod_gets_the_sidecar_once(name: str) -> None:
    once = injected(recorded_pod(name))
    assert once["spec"]["initContainers"][0]["name"] == SIDECAR
    told = verdict(once)
    assert (told.reason, told.operations) == (Reason.ALREADY_INJECTED, ())


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("pod-create-bare", "bare"),
        ("pod-create-cronjob", "cron-mcp"),
        ("pod-create-generate-name", "gen"),
        ("pod-create-job", "batch-mcp"),
        ("pod-create-replicaset", "github-mcp"),
        ("pod-create-statefulset", "slack-mcp"),
    ],
)
def test_recorded_pods_carry_their_workloads_identity(name: str, server: str) -> None:
    found = injected(recorded_pod(name))
    told = environment(sidecar_of(found))
    assert told["TOKENWARD_SPIFFE_ID"] == f"spiffe://example.org/ns/mcp-servers/mcpserver/{server}"
    source = volume_of(found, "tokenward-credential")["secret"]
    assert source["secretName"] == f"{server}-tokenward"


def test_the_sidecar_is_told_everything_it_needs() -> None:
    under = settings(profiles={"default": {"scopes": ["mcp", "read"]}})
    made = pod({"port": "16000", "ops-port": "16001", "log-level": "debug"})
    container = sidecar_of(injected(made, under))
    assert container["image"] == IMAGE
    assert container["command"] == ["python", "-m", "sidecar"]
    assert container["restartPolicy"] == "Always"
    assert environment(container) == {
        "TOKENWARD_AUTHSERVER_URL": "https://authserver.tokenward-system.svc:8443",
        "TOKENWARD_AUTHSERVER_CA_FILE": "/var/run/tokenward/authserver-ca/ca.pem",
        "TOKENWARD_CREDENTIAL_DIR": "/var/run/tokenward/credential",
        "TOKENWARD_SPIFFE_ID": "spiffe://example.org/ns/mcp-servers/mcpserver/github",
        "TOKENWARD_ISSUER": "https://auth.example.com",
        "TOKENWARD_SCOPES": "mcp read",
        "TOKENWARD_PORT": "16000",
        "TOKENWARD_OPS_PORT": "16001",
        "TOKENWARD_LOG_LEVEL": "debug",
    }


def test_the_probe_asks_the_ops_port_names_no_host_and_leaves_readiness_alone() -> None:
    container = sidecar_of(injected(pod({"ops-port": "16001"})))
    asked = container["livenessProbe"]["httpGet"]
    assert asked == {"path": "/healthz", "port": 16001, "scheme": "HTTP"}
    assert "readinessProbe" not in container


def test_the_app_waits_for_a_hook_and_not_for_a_probe_that_is_asked_once_a_second() -> None:
    container = sidecar_of(injected(pod()))
    command = container["lifecycle"]["postStart"]["exec"]["command"]
    assert container["lifecycle"] == {"postStart": {"exec": {"command": command}}}
    assert "startupProbe" not in container
    # It is a module of the sidecar, which reads the same variable for the port.
    assert command[-1] == wait_until_ready.__name__


def test_no_cpu_limit_slows_the_sidecar_down_while_it_starts() -> None:
    assert "cpu" not in sidecar_of(injected(pod()))["resources"]["limits"]


def test_the_label_the_status_and_the_ca_are_written() -> None:
    found = injected(pod())
    metadata = found["metadata"]
    assert metadata["labels"]["tokenward.dev/injected"] == "true"
    assert metadata["annotations"]["tokenward.dev/authserver-ca"] == CA.pem
    status = json.loads(metadata["annotations"]["tokenward.dev/status"])
    assert status == {
        "version": VERSION,
        "profile": "default",
        "server": "github",
        "config-hash": settings().config_hashes["default"],
    }
    source = volume_of(found, "tokenward-authserver-ca")["downwardAPI"]["items"][0]
    assert source["fieldRef"]["fieldPath"] == "metadata.annotations['tokenward.dev/authserver-ca']"


def test_no_api_token_reaches_the_sidecar() -> None:
    found = injected(pod())
    paths = {mount["mountPath"]: mount for mount in sidecar_of(found)["volumeMounts"]}
    mount = paths["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert volume_of(found, mount["name"]) == {"name": mount["name"], "emptyDir": {}}


def test_the_credential_from_a_secret_is_readable_without_a_group_and_never_optional() -> None:
    source = volume_of(injected(pod()), "tokenward-credential")["secret"]
    assert source["defaultMode"] == 0o444
    assert [item["path"] for item in source["items"]] == ["tls.crt", "tls.key"]
    assert "optional" not in source


def test_the_credential_from_a_signer_is_one_bundle_file() -> None:
    found = injected(pod(), settings(identity={"source": "podCertificate"}))
    assert volume_of(found, "tokenward-credential")["projected"]["sources"] == [
        {
            "podCertificate": {
                "signerName": "tokenward.dev/workload",
                "keyType": "ECDSAP256",
                "maxExpirationSeconds": 86400,
                "credentialBundlePath": "credential-bundle.pem",
            }
        }
    ]


def test_the_credential_from_a_csi_driver_is_told_the_workload() -> None:
    attributes = {"uri": "{spiffeId}", "name": "{namespace}.{server}", "literal": "$(X)"}
    under = settings(identity={"source": "csi", "driver": "x.io", "attributes": attributes})
    assert volume_of(injected(pod(), under), "tokenward-credential")["csi"] == {
        "driver": "x.io",
        "readOnly": True,
        "volumeAttributes": {
            "uri": "spiffe://example.org/ns/mcp-servers/mcpserver/github",
            "name": "mcp-servers.github",
            "literal": "$(X)",
        },
    }


@pytest.mark.parametrize("identity", ["secret", "podCertificate", "csi"])
def test_the_sidecar_finds_its_files_in_one_place_whatever_they_come_from(identity: str) -> None:
    more = {"driver": "x.io"} if identity == "csi" else {}
    container = sidecar_of(injected(pod(), settings(identity={"source": identity} | more)))
    assert container == sidecar_of(injected(pod()))


def test_the_user_is_left_to_the_platform_where_the_profile_says_so() -> None:
    under = settings(profiles={"default": {"runAsUser": None}})
    context = sidecar_of(injected(pod(), under))["securityContext"]
    assert "runAsUser" not in context
    assert "runAsGroup" not in context


# Parents


@pytest.mark.parametrize("empty", ["absent", None, []])
@pytest.mark.parametrize("field", ["volumes", "initContainers"])
def test_absent_null_and_empty_lists_of_the_pod_are_filled(field: str, empty: Any) -> None:
    made = pod()
    if empty != "absent":
        made["spec"][field] = empty
    assert len(injected(made)["spec"][field]) in (1, 3)


@pytest.mark.parametrize("empty", ["absent", None, []])
def test_absent_null_and_empty_variables_are_filled(empty: Any) -> None:
    made = pod()
    if empty != "absent":
        made["spec"]["containers"][0]["env"] = empty
    assert environment(injected(made)["spec"]["containers"][0]) == {
        "TOKENWARD_URL": "http://127.0.0.1:15500"
    }


@pytest.mark.parametrize("metadata", [{}, {"labels": None}, {"annotations": None}, {"labels": {}}])
def test_absent_null_and_empty_maps_of_the_metadata_are_filled(metadata: dict[str, Any]) -> None:
    made = pod()
    made["metadata"] = {"name": "github"} | metadata
    found = injected(made, namespace_opted_in=True)
    assert found["metadata"]["labels"] == {"tokenward.dev/injected": "true"}


def test_keys_are_escaped_in_paths() -> None:
    paths = [operation["path"] for operation in verdict(pod(labels={"a": "b"})).operations]
    assert "/metadata/annotations/tokenward.dev~1status" in paths
    assert "/metadata/labels/tokenward.dev~1injected" in paths


# Order


def test_the_sidecar_starts_first_unless_the_pod_wants_it_last() -> None:
    inits = [{"name": "network", "image": "x"}, {"name": "migrate", "image": "x"}]
    first = injected(pod(initContainers=inits))
    last = injected(pod({"init-order": "last"}, initContainers=inits))
    assert [c["name"] for c in first["spec"]["initContainers"]] == [SIDECAR, "network", "migrate"]
    assert [c["name"] for c in last["spec"]["initContainers"]] == ["network", "migrate", SIDECAR]


def test_another_injector_that_went_first_is_not_moved_back() -> None:
    found = injected(pod(initContainers=[{"name": "istio-proxy", "image": "x"}]))
    found["spec"]["initContainers"].reverse()
    assert verdict(found).operations == ()


# Variables of the app


def test_every_container_but_the_sidecar_gets_the_address() -> None:
    inits = [{"name": "setup", "image": "x"}]
    found = injected(pod(initContainers=inits))
    for container in (found["spec"]["containers"][0], found["spec"]["initContainers"][1]):
        assert environment(container)["TOKENWARD_URL"] == "http://127.0.0.1:15500"
    assert "TOKENWARD_URL" not in environment(sidecar_of(found))


def test_the_pod_may_choose_who_gets_the_address() -> None:
    inits = [{"name": "setup", "image": "x"}]
    only = injected(pod({"containers": "setup"}, initContainers=inits))
    without = injected(pod({"skip-containers": "setup"}, initContainers=inits))
    assert not environment(only["spec"]["containers"][0])
    assert environment(only["spec"]["initContainers"][1])
    assert environment(without["spec"]["containers"][0])
    assert not environment(without["spec"]["initContainers"][1])


def test_ours_stands_before_entries_that_may_refer_to_it() -> None:
    env = [{"name": "TOKEN_URL", "value": "$(TOKENWARD_URL)/v1/token"}]
    found = injected(pod(container={"env": env}))
    names = [entry["name"] for entry in found["spec"]["containers"][0]["env"]]
    assert names == ["TOKENWARD_URL", "TOKEN_URL"]


def test_the_apps_own_address_is_kept_and_only_a_different_one_is_warned_about() -> None:
    for value, warned in (("http://127.0.0.1:15500", 0), ("http://127.0.0.1:9", 1)):
        env = [{"name": "TOKENWARD_URL", "value": value}]
        told = verdict(pod(container={"env": env}))
        assert len(told.warnings) == warned
        found = patched(pod(container={"env": env}), told)
        assert found["spec"]["containers"][0]["env"] == env


# Resources


def _resources(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = sidecar_of(injected(made)).get("resources", {})
    return found


def test_requests_and_a_memory_limit_are_set_and_a_cpu_limit_only_on_request() -> None:
    assert _resources(pod()) == {
        "requests": {"cpu": "10m", "memory": "48Mi"},
        "limits": {"memory": "96Mi"},
    }
    assert _resources(pod({"cpu-limit": "1"}))["limits"] == {"cpu": "1", "memory": "96Mi"}
    under = settings(profiles={"default": {"cpuLimit": {"min": "1", "default": "1", "max": "2"}}})
    assert sidecar_of(injected(pod(), under))["resources"]["limits"]["cpu"] == "1"


def test_a_profile_names_ephemeral_storage_for_namespaces_with_a_quota() -> None:
    amounts = {"ephemeralStorageRequest": "8Mi", "ephemeralStorageLimit": "64Mi"}
    under = settings(profiles={"default": amounts})
    for made in (pod(), pod(resources={"limits": {"cpu": "1"}})):
        resources = sidecar_of(injected(made, under))["resources"]
        assert resources["requests"]["ephemeral-storage"] == "8Mi"
        assert resources["limits"]["ephemeral-storage"] == "64Mi"


def test_a_limit_below_the_default_request_takes_the_request_along() -> None:
    assert _resources(pod({"memory-limit": "48Mi", "memory-request": "16Mi"}))["limits"] == {
        "memory": "48Mi",
    }
    under = settings(
        profiles={"default": {"cpuRequest": {"min": "1m", "default": "150m", "max": "1"}}}
    )
    container = sidecar_of(injected(pod({"cpu-limit": "100m"}), under))
    assert container["resources"]["requests"]["cpu"] == "100m"


def test_a_request_above_its_limit_is_refused() -> None:
    told = verdict(pod({"cpu-request": "300m", "cpu-limit": "250m"}))
    assert told.reason is Reason.BAD_RESOURCES


@pytest.mark.parametrize(
    "resources",
    [
        {"limits": {"cpu": "1", "memory": "1Gi"}},
        {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}},
    ],
)
def test_a_guaranteed_pod_stays_guaranteed(resources: dict[str, Any]) -> None:
    ours = _resources(pod(container={"resources": resources}))
    assert ours["requests"] == ours["limits"] == {"cpu": "200m", "memory": "96Mi"}


def test_a_burstable_pod_pays_only_the_small_requests() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}
    assert _resources(pod(container={"resources": resources}))["requests"]["cpu"] == "10m"


def test_a_pods_own_budget_is_not_exceeded() -> None:
    budget = {"requests": {"cpu": "100m"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
    assert _resources(pod(resources=budget)) == {}
    asked = pod({"cpu-limit": "50m"}, resources=budget)
    assert _resources(asked) == {"limits": {"cpu": "50m"}}


# Again


@pytest.mark.parametrize("identity", ["secret", "podCertificate"])
def test_what_others_add_between_two_passes_is_kept_and_only_newcomers_are_served(
    identity: str,
) -> None:
    under = settings(identity={"source": identity})
    later = after_plugins(injected(pod(), under))
    told = verdict(later, under)
    assert [operation["path"] for operation in told.operations] == ["/spec/initContainers/0/env/0"]
    assert verdict(patched(later, told), under).operations == ()


def test_users_filled_in_by_the_platform_are_kept() -> None:
    under = settings(profiles={"default": {"runAsUser": None}})
    later = injected(pod(), under)
    sidecar_of(later)["securityContext"] |= {
        "runAsUser": 1000680000,
        "seLinuxOptions": {"level": "s0:c26,c5"},
    }
    assert verdict(later, under).reason is Reason.ALREADY_INJECTED


def test_a_name_label_added_later_does_not_rename_the_workload() -> None:
    later = injected(pod())
    later["metadata"]["labels"]["app.kubernetes.io/name"] = "renamed"
    assert verdict(later).operations == ()


def test_a_copy_for_debugging_is_recognised_and_marked_again() -> None:
    copied = injected(pod(labels={"app.kubernetes.io/name": "github-mcp"}))
    copied["metadata"] = {
        "name": "github-debug",
        "annotations": copied["metadata"]["annotations"],
    }
    again = injected(copied)
    assert again["spec"] == copied["spec"]
    assert again["metadata"]["labels"] == {"tokenward.dev/injected": "true"}


def test_a_forged_status_beside_an_intact_sidecar_is_written_over() -> None:
    found = injected(pod({"server": "github"}))
    honest = found["metadata"]["annotations"]["tokenward.dev/status"]
    found["metadata"]["annotations"]["tokenward.dev/status"] = '{"server":"victim"}'
    again = injected(found)
    assert again["metadata"]["annotations"]["tokenward.dev/status"] == honest


@pytest.mark.parametrize("status", ["", "[]", "{}", "null", '{"server":7}', "[" * 100_000])
def test_a_status_that_is_none_is_ignored(status: str) -> None:
    found = injected(pod())
    found["metadata"]["annotations"]["tokenward.dev/status"] = status
    assert verdict(found).decision == "injected"


@pytest.mark.parametrize("field", TAMPERED)
def test_a_sidecar_that_is_not_ours_is_refused_and_the_difference_is_named(field: str) -> None:
    found = injected(pod())
    sidecar_of(found).update(TAMPERED[field])
    told = verdict(found)
    assert told.reason is Reason.RESERVED_NAME
    [member] = TAMPERED[field]
    assert f"differs in {member})" in told.message


@pytest.mark.parametrize(
    "change",
    [
        {"runAsUser": 0},
        {"privileged": True},
        {"allowPrivilegeEscalation": True},
        {"readOnlyRootFilesystem": False},
        {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}},
        {"procMount": "Unmasked"},
        {"appArmorProfile": {"type": "Unconfined"}},
        {"windowsOptions": {"hostProcess": True}},
        {"seccompProfile": {"type": "Unconfined"}},
    ],
)
def test_a_sidecar_with_a_loosened_security_context_is_refused(change: dict[str, Any]) -> None:
    found = injected(pod())
    sidecar_of(found)["securityContext"].update(change)
    assert "differs in securityContext)" in verdict(found).message


@pytest.mark.parametrize("status", [False, True])
@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_a_container_of_our_name_is_never_taken_for_ours(place: str, status: bool) -> None:
    forged = {"name": SIDECAR, "image": "evil", "restartPolicy": "Always"}
    made = pod({"status": '{"server":"github"}'} if status else None)
    made["spec"].setdefault(place, []).append(forged)
    assert verdict(made).decision == "denied"


def test_two_sidecars_are_refused() -> None:
    found = injected(pod())
    found["spec"]["initContainers"].append(copy.deepcopy(sidecar_of(found)))
    assert verdict(found).reason is Reason.RESERVED_NAME


@pytest.mark.parametrize(
    "source", [{"emptyDir": {}}, {"secret": {"secretName": "other-tokenward"}}]
)
def test_another_credential_volume_under_our_name_is_refused(source: dict[str, Any]) -> None:
    found = injected(pod())
    volume = volume_of(found, "tokenward-credential")
    volume.clear()
    volume.update({"name": "tokenward-credential"} | source)
    assert verdict(found).reason is Reason.RESERVED_NAME


def test_a_copy_made_under_another_configuration_is_refused_with_the_way_out() -> None:
    other = settings(image=IMAGE.replace("a" * 64, "c" * 64))
    told = verdict(injected(pod()), other)
    assert told.reason is Reason.RESERVED_NAME
    assert "remove it" in told.message


def test_the_configuration_hash_follows_what_the_pod_gets() -> None:
    base = settings().config_hashes["default"]
    assert settings().config_hashes["default"] == base
    assert settings(neverInject=["x"]).config_hashes["default"] == base
    for change in (
        {"image": IMAGE.replace("a" * 64, "c" * 64)},
        {"issuer": "https://other.example.com"},
        {"trustDomain": "other.example"},
        {"identity": {"source": "podCertificate"}},
        {"profiles": {"default": {"scopes": ["x"]}}},
    ):
        assert settings(**change).config_hashes["default"] != base
