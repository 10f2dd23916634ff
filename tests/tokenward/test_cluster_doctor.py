"""`doctor --cluster`: each problem of a cluster is found, and a sound cluster has none."""

import base64
import copy
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.server_certificates import Authority
from tests.tokenward.running import run
from tokenward.cluster.checks import GUARD
from webhook.sidecar_spec import CONTAINER

Object = dict[str, Any]
Cluster = dict[str, list[Object]]

REFUSED_CALL = (
    "Error from server (InternalError): Internal error occurred: failed calling webhook"
    ' "pods.tokenward.dev": no endpoints available for service "tokenward-webhook"'
)


def named(name: str, namespace: str = "", **members: Any) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, **members}


def ready(
    name: str,
    namespace: str,
    status: str = "True",
    reason: str = "Ready",
    message: str = "the words",
) -> Object:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
    return named(name, namespace, status={"conditions": [condition]})


def pod(name: str, *, sidecar_ready: bool = True, **status: Any) -> Object:
    state = {"name": CONTAINER, "ready": sidecar_ready, "restartCount": 3}
    made = named(
        name, "mcp-servers",
        spec={"containers": [{"name": "app"}], "initContainers": [{"name": CONTAINER}]},
        status={"phase": "Running", "initContainerStatuses": [state | status]},
    )  # fmt: skip
    made["metadata"]["annotations"] = {"tokenward.dev/inject": "true"}
    return made


@pytest.fixture
def sound() -> Cluster:
    bundle = base64.b64encode(Authority().pem.encode()).decode()
    established = {"conditions": [{"type": "Established", "status": "True"}]}
    return {
        "customresourcedefinitions": [
            named(f"{plural}.tokenward.dev", spec={"group": "tokenward.dev"}, status=established)
            for plural in ("mcpauthservers", "mcpserverauths")
        ]
        + [named("certificates.cert-manager.io", spec={"group": "cert-manager.io"})],
        "mutatingwebhookconfigurations": [
            named("tokenward", webhooks=[
                {"name": "pods.tokenward.dev", "clientConfig": {"caBundle": bundle},
                 "failurePolicy": "Fail"},
            ]),
            named("somebody-else", webhooks=[{"name": "other", "failurePolicy": "Ignore"}]),
        ],
        "validatingadmissionpolicies": [named(name, status={"typeChecking": {}}) for name in GUARD],
        "validatingadmissionpolicybindings": [
            named(name, spec={"policyName": name, "validationActions": ["Deny"]}) for name in GUARD
        ],
        "deployments": [
            named("tokenward-webhook", "tokenward-system", status={"availableReplicas": 2}),
            named("unrelated", "tokenward-system", status={}),
        ],
        "pods": [pod("github"), named("plain", "default", spec={"containers": []})],
        "mcpauthservers.tokenward.dev": [ready("main", "tokenward-system")],
        "mcpserverauths.tokenward.dev": [ready("github", "mcp-servers")],
    }  # fmt: skip


PROGRAM = """#!{python}
import json, sys
words = [word for word in sys.argv[1:] if not word.startswith("--request-timeout")]
cluster = json.load(open({file!r}))
if words[0] == "create":
    made = json.load(sys.stdin)
    assert "--dry-run=server" in words and made["metadata"]["annotations"]
    said = cluster.get("refusal", "")
elif words[1] in cluster:
    print(json.dumps({{"items": cluster[words[1]]}}))
    sys.exit()
else:
    said = cluster.get("unlisted", {{}}).get(words[1]) or (
        'error: the server doesn\\'t have a resource type "%s"' % words[1]
    )
print(said, file=sys.stderr)
sys.exit(bool(said))
"""


def kubectl(folder: Path, cluster: Cluster | Object) -> Path:
    """A program that answers as kubectl does, from these objects."""
    file, program = folder / "cluster.json", folder / "kubectl"
    file.write_text(json.dumps(cluster))
    program.write_text(PROGRAM.format(python=sys.executable, file=str(file)))
    program.chmod(0o700)
    return program


async def problems(folder: Path, cluster: Cluster | Object) -> list[Object]:
    ran = await run(
        "doctor", "--cluster", "--kubectl", kubectl(folder, cluster), "--output", "json"
    )
    found: list[Object] = ran.json["problems"]
    assert ran.err == ""
    assert ran.code == (1 if found else 0)
    return found


def ended_bundle(folder: Path) -> str:
    Authority().issue(folder, valid=-timedelta(days=1))
    return base64.b64encode((folder / "tls.crt").read_bytes()).decode()


def hook(cluster: Object) -> Object:
    found: Object = cluster["mutatingwebhookconfigurations"][0]["webhooks"][0]
    return found


def dropped(kind: str, index: int = 0) -> Callable[[Object], None]:
    return lambda cluster: cluster[kind].pop(index)


def replaced(kind: str, made: Object) -> Callable[[Object], None]:
    return lambda cluster: cluster.update({kind: [made]})


WARNING = {"fieldRef": "spec.validations[0].expression", "warning": "undefined field 'x'"}
WITHOUT_SIDECAR = pod("late")
WITHOUT_SIDECAR["spec"]["initContainers"] = []

CRASHING = pod("github", sidecar_ready=False, lastState={"terminated": {"exitCode": 78}})

SEEDS: dict[str, tuple[Callable[[Object], Any], str, str]] = {
    "no webhook": (dropped("mutatingwebhookconfigurations"), "webhook_not_installed", "install"),
    "webhook fails open": (
        lambda c: hook(c).update(failurePolicy="Ignore"), "webhook_fails_open", "failurePolicy",
    ),
    "no CA bundle": (
        lambda c: hook(c).update(clientConfig={}), "webhook_without_ca", "controller",
    ),
    "CA bundle is no PEM": (
        lambda c: hook(c)["clientConfig"].update(caBundle="bm8="), "webhook_ca_over", "controller",
    ),
    "webhook away": (
        lambda c: c.update(refusal=REFUSED_CALL), "webhook_unreachable", "NetworkPolicies",
    ),
    "one definition": (
        dropped("customresourcedefinitions"), "definition_missing", "manifests/crds",
    ),
    "definition not served": (
        lambda c: c["customresourcedefinitions"][0].update(status={}),
        "definition_not_established", "describe crd",
    ),
    "no guard": (dropped("validatingadmissionpolicies"), "guard_not_installed", "install"),
    "guard without binding": (
        dropped("validatingadmissionpolicybindings", 2), "guard_not_bound", "install",
    ),
    "guard that only warns": (
        lambda c: c["validatingadmissionpolicybindings"][0]["spec"].update(
            validationActions=["Warn"]
        ),
        "guard_not_bound", "install",
    ),
    "guard of another version": (
        lambda c: c["validatingadmissionpolicies"][0].update(
            status={"typeChecking": {"expressionWarnings": [WARNING]}}
        ),
        "guard_does_not_compile", "1.32",
    ),
    "webhook's pods away": (
        lambda c: c["deployments"][0].update(status={}), "deployment_not_available", "describe",
    ),
    "auth server not ready": (
        replaced(
            "mcpauthservers.tokenward.dev",
            ready("main", "tokenward-system", "False", "KeyMissing"),
        ),
        "object_not_ready", "backup",
    ),
    "no controller": (
        replaced("mcpserverauths.tokenward.dev", named("github", "mcp-servers")),
        "object_without_status", "controller",
    ),
    "namespace not prepared": (
        replaced(
            "mcpserverauths.tokenward.dev",
            ready("github", "mcp-servers", "False", "NamespaceNotPrepared"),
        ),
        "namespace_not_prepared", "kubectl -n mcp-servers apply -k manifests/tenant",
    ),
    "namespace not prepared for cert-manager": (
        replaced(
            "mcpserverauths.tokenward.dev",
            ready("github", "mcp-servers", "False", "NamespaceNotPrepared",
                  "apply manifests/tenant/cert-manager there"),
        ),
        "namespace_not_prepared",
        "kubectl -n mcp-servers apply -k manifests/tenant/cert-manager",
    ),
    "namespace not prepared for network policies": (
        replaced(
            "mcpserverauths.tokenward.dev",
            ready("github", "mcp-servers", "False", "NamespaceNotPrepared",
                  "apply manifests/tenant/network-policy there"),
        ),
        "namespace_not_prepared",
        "kubectl -n mcp-servers apply -k manifests/tenant/network-policy",
    ),
    "pod made without a webhook": (
        replaced("pods", WITHOUT_SIDECAR), "pod_without_sidecar", "delete it",
    ),
    "sidecar that crashes": (
        replaced("pods", CRASHING),
        "sidecar_not_ready", "kubectl -n mcp-servers logs github -c tokenward-sidecar",
    ),
}  # fmt: skip


async def test_a_sound_cluster_has_no_problems(tmp_path: Path, sound: Cluster) -> None:
    ran = await run("doctor", "--cluster", "--kubectl", kubectl(tmp_path, sound))
    assert (ran.code, ran.out, ran.err) == (0, "no problems found\n", "")


async def test_a_cluster_without_the_controller_has_no_problems(
    tmp_path: Path, sound: Cluster
) -> None:
    for kind in ("mcpauthservers.tokenward.dev", "mcpserverauths.tokenward.dev"):
        del sound[kind]
    sound["customresourcedefinitions"] = []
    assert await problems(tmp_path, sound) == []


@pytest.mark.parametrize("name", SEEDS)
async def test_it_finds(tmp_path: Path, sound: Cluster, name: str) -> None:
    seed, check, remedy = SEEDS[name]
    wrong = copy.deepcopy(sound)
    seed(wrong)
    [found] = await problems(tmp_path, wrong)
    assert found["check"] == check
    assert remedy in found["remedy"]
    assert found["place"]
    assert found["problem"]


async def test_it_finds_all_at_once(tmp_path: Path, sound: Cluster) -> None:
    seeds = ["webhook fails open", "no guard", "no controller", "sidecar that crashes"]
    for name in seeds:
        SEEDS[name][0](sound)
    found = [one["check"] for one in await problems(tmp_path, sound)]
    assert found == [SEEDS[name][1] for name in seeds]


async def test_a_bundle_that_is_over_is_found(tmp_path: Path, sound: Cluster) -> None:
    hook(sound)["clientConfig"]["caBundle"] = ended_bundle(tmp_path)
    [found] = await problems(tmp_path, sound)
    assert found["check"] == "webhook_ca_over"


async def test_an_admission_that_is_refused_for_another_reason_is_no_problem(
    tmp_path: Path, sound: Cluster
) -> None:
    refused = "Error from server: admission webhook denied the request: [no_resource]"
    assert await problems(tmp_path, sound | {"refusal": refused}) == []


async def test_what_this_account_may_not_list_is_said(tmp_path: Path, sound: Cluster) -> None:
    kinds = ("mutatingwebhookconfigurations", "validatingadmissionpolicies", "pods")
    forbidden = {
        kind: f"Error from server (Forbidden): {kind} is forbidden: User cannot list"
        for kind in kinds
    }
    for kind in kinds:
        del sound[kind]
    found = await problems(tmp_path, sound | {"unlisted": forbidden})
    assert [(one["check"], one["place"]) for one in found] == [
        ("cluster_not_readable", kind) for kind in kinds
    ]


async def test_a_finished_pod_needs_no_sidecar(tmp_path: Path, sound: Cluster) -> None:
    done = pod("job", sidecar_ready=False)
    done["status"]["phase"] = "Succeeded"
    sound["pods"].append(done)
    assert await problems(tmp_path, sound) == []


async def test_no_cluster_is_one_line(tmp_path: Path, sound: Cluster) -> None:
    del sound["pods"]
    refused = {"pods": "The connection to the server localhost:8080 was refused"}
    program = kubectl(tmp_path, sound | {"unlisted": refused})
    ran = await run("doctor", "--cluster", "--kubectl", program)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"error: {refused['pods']}\n"


async def test_no_kubectl_is_one_line(tmp_path: Path) -> None:
    ran = await run("doctor", "--cluster", "--kubectl", tmp_path / "absent")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "absent" in ran.err


async def test_of_a_cluster_that_is_not_reached_kubectls_own_words_are_told(
    tmp_path: Path,
) -> None:
    program = tmp_path / "kubectl"
    program.write_text(
        "#!/bin/sh\n"
        'echo \'E1129 13:47:52.660837     710 memcache.go:265] "Unhandled" err="refused"\' >&2\n'
        "echo 'The connection to the server localhost:8080 was refused' >&2\n"
        "exit 1\n"
    )
    program.chmod(0o700)
    ran = await run("doctor", "--cluster", "--kubectl", program)
    said = "error: The connection to the server localhost:8080 was refused\n"
    assert (ran.code, ran.out, ran.err) == (1, "", said)


async def test_a_kubectl_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    program = tmp_path / "none"
    ran = await run("doctor", "--cluster", "--kubectl", program)
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {program}: no such program\n")
