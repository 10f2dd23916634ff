"""The guard inside a real API server: what it refuses, and what it must let be."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Object, Refused, eventually, narrowed
from tests.cluster.pods import intact, named
from tests.support.pod_samples import TAMPERED
from tests.webhook.pods import sidecar_of, volume_of

_ANOTHER_SECRET = {"sources": [{"secret": {"name": "another"}}]}
_OURS = {"name": "tokenward-credential", "mountPath": "/stolen"}
_EVIL = "https://evil.example.com"


def _sidecar(**changes: Any) -> Callable[[Object], None]:
    """The change of another webhook to the sidecar; None takes a member away."""

    def change(made: Object) -> None:
        container = sidecar_of(made)
        container.update(changes)
        for name in (n for n, value in changes.items() if value is None):
            del container[name]

    return change


def _environment(**entry: Any) -> Callable[[Object], None]:
    return lambda made: sidecar_of(made)["env"].append(entry)


def _pod(**changes: Any) -> Callable[[Object], None]:
    return lambda made: made["spec"].update(changes)


def _forget(field: str, key: str) -> Callable[[Object], None]:
    return lambda made: made["metadata"][field].pop(key)


def _container(field: str) -> Callable[[Object], None]:
    thief = {"name": "thief", "image": "registry.example.com/x:1", "volumeMounts": [_OURS]}
    return lambda made: made["spec"][field].append(thief)


def _credential_by(**source: Any) -> Callable[[Object], None]:
    def change(made: Object) -> None:
        volume = volume_of(made, "tokenward-credential")
        volume.clear()
        volume.update({"name": "tokenward-credential"} | source)

    return change


def _without_sidecar(made: Object) -> None:
    del made["spec"]["initContainers"]


def _without_restart_policy(made: Object) -> None:
    """Hook and probe go too: with them it is no valid pod, which is said before any policy."""
    _sidecar(restartPolicy=None, lifecycle=None, livenessProbe=None)(made)


# What a webhook after ours could leave behind, all of it valid pods, with a word of the refusal.
_CHANGES: dict[str, tuple[Callable[[Object], None], str]] = {
    "removed": (_without_sidecar, "exactly one init container"),
    "restartPolicy": (_without_restart_policy, "lost restartPolicy"),
    "image": (_sidecar(image="registry.example.com/sidecar:1"), "not pinned by digest"),
    "command": (_sidecar(**TAMPERED["command"]), "what the sidecar runs"),
    "args": (_sidecar(**TAMPERED["args"]), "what the sidecar runs"),
    "workingDir": (_sidecar(**TAMPERED["workingDir"]), "what the sidecar runs"),
    "lifecycle": (_sidecar(**TAMPERED["lifecycle"]), "what the sidecar runs"),
    "preStop": (_sidecar(**TAMPERED["preStop"]), "what the sidecar runs"),
    "startupProbe": (_sidecar(**TAMPERED["startupProbe"]), "what the sidecar runs"),
    "livenessProbe": (_sidecar(**TAMPERED["livenessProbe"]), "what the sidecar runs"),
    "stdin": (_sidecar(**TAMPERED["stdin"]), "what the sidecar runs"),
    "envFrom": (_sidecar(**TAMPERED["envFrom"]), "what the sidecar runs"),
    "variable": (_environment(name="PYTHONPATH", value="/x"), "environment was changed"),
    "address": (_environment(name="TOKENWARD_ISSUER", value=_EVIL), "environment was changed"),
    "mounts": (_sidecar(volumeMounts=None), "mounts were changed"),
    "security": (_sidecar(securityContext=None), "security context was loosened"),
    "label": (_forget("labels", "tokenward.dev/injected"), "were removed"),
    "status": (_forget("annotations", "tokenward.dev/status"), "were removed"),
    "emptyDir": (_credential_by(emptyDir={}), "volumes were changed"),
    "secret": (_credential_by(projected=_ANOTHER_SECRET), "volumes were changed"),
    "container": (_container("containers"), "no container but the sidecar"),
    "init container": (_container("initContainers"), "no container but the sidecar"),
    "hostPID": (_pod(hostPID=True), "share namespaces with its node"),
}


def test_an_intact_sidecar_passes_and_a_changed_one_is_refused(guarded: Cluster) -> None:
    assert sidecar_of(guarded.create(intact("intact", guarded.namespace)))
    passed = []
    for name, (change, why) in _CHANGES.items():
        made = intact("changed", guarded.namespace)
        change(made)
        if why not in (told := guarded.refusal(made)):
            passed.append((name, told))
    assert passed == []


def test_a_sidecar_that_lost_its_restart_policy_alone_is_refused(guarded: Cluster) -> None:
    """kube-apiserver's own validation comes first; an API server without it asks the guard."""
    made = intact("changed", guarded.namespace)
    _sidecar(**TAMPERED["restartPolicy"])(made)
    told = guarded.refusal(made)
    own = "may not be set for init containers without restartPolicy=Always"
    assert own in told or "lost restartPolicy" in told


def test_an_identity_of_another_namespace_is_refused(guarded: Cluster) -> None:
    told = guarded.refusal(intact("foreign", "victims"))
    assert "not one of this namespace" in told


def test_pods_that_did_not_opt_in_are_let_be(guarded: Cluster) -> None:
    guarded.create(named("out", {"inject": "false"}, hostNetwork=True))
    many = [{"name": f"v{i}", "emptyDir": {}} for i in range(200)]
    mounts = [{"name": f"v{i}", "mountPath": f"/v{i}"} for i in range(200)]
    app = {"image": "registry.example.com/app:1", "volumeMounts": mounts}
    crowd = [{"name": f"c{i}"} | app for i in range(20)]
    large = named("large", {"inject": "false"}, volumes=many)
    large["spec"]["containers"] = crowd
    assert guarded.refusal(large) == ""


def test_system_namespaces_are_let_be(cluster: Cluster, shipped: list[Object]) -> None:
    for one in shipped:
        if one["metadata"]["name"] == "tokenward-guard":
            cluster.apply_everywhere(narrowed(one, cluster, also=("kube-system",)))
    cluster.give_account("kube-system")
    without = named("without")
    eventually(lambda: cluster.refusal(without), lambda told: "exactly one" in told)
    assert cluster.refusal(without, namespace="kube-system") == ""


def test_a_debug_container_may_not_enter_the_sidecar(guarded: Cluster) -> None:
    guarded.create(intact("debugged", guarded.namespace))
    path = f"/api/v1/namespaces/{guarded.namespace}/pods/debugged/ephemeralcontainers"

    def debug(**changes: Any) -> str:
        made = guarded.get("pod", "debugged")
        assert made is not None
        debugger = {"name": "debugger", "image": "registry.example.com/debug:1"} | changes
        made["spec"]["ephemeralContainers"] = [debugger]
        return guarded.run("replace", "--raw", path, "-f", "-", given=made)

    with pytest.raises(Refused, match="process namespace"):
        debug(targetContainerName="tokenward-sidecar")
    with pytest.raises(Refused, match="no container but the sidecar"):
        debug(volumeMounts=[_OURS])
    assert json.loads(debug(targetContainerName="app"))["spec"]["ephemeralContainers"]


def test_an_update_is_never_refused_so_that_finalizers_go_and_pods_end(
    cluster: Cluster, guard: Callable[[], None]
) -> None:
    made = named("older")
    made["metadata"]["finalizers"] = ["tokenward.dev-tests/held"]
    cluster.create(made)
    guard()
    assert "exactly one" in cluster.refusal(named("newer"))
    cluster.inside("delete", "pod", "older", "--wait=false")
    release = '[{"op":"remove","path":"/metadata/finalizers"}]'
    cluster.inside("patch", "pod", "older", "--type=json", "-p", release)
    eventually(lambda: cluster.get("pod", "older"), lambda found: found is None)


def test_a_finished_jobs_pod_goes_away(installed: Cluster, guarded: Cluster) -> None:
    template = named("ignored")
    template["spec"]["restartPolicy"] = "Never"
    template["metadata"].pop("name")
    spec = {"template": {k: template[k] for k in ("metadata", "spec")}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": spec}
    installed.create(job)

    def pods() -> list[Object]:
        found = installed.inside("get", "pods", "-l", "job-name=once", "-o", "json")
        items: list[Object] = json.loads(found)["items"]
        return items

    try:
        (made,) = eventually(pods, bool)
    except AssertionError:
        pytest.skip("this cluster runs no Job controller")
    assert sidecar_of(made)
    ended = ("--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Succeeded"}}')
    installed.inside("patch", "pod", made["metadata"]["name"], *ended)
    eventually(
        lambda: installed.get("job", "once"),
        lambda found: found is not None and found["status"].get("succeeded") == 1,
    )
    installed.inside("delete", "job", "once", "--cascade=foreground", "--wait=false")
    eventually(pods, lambda found: found == [])
