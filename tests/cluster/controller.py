"""The controller on this host, with its own ServiceAccount's rights, and a stand-in for a node."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import yaml

from tests.cluster.cluster import Cluster, Object, Refused, eventually
from tests.manifests.rendering import MANIFESTS
from tests.support.pod_volumes import localised, mount

SIDECAR = f"registry.example.com/tokenward/sidecar@sha256:{'0' * 64}"
ADDRESS = "127.77.0.1"  # of the authserver's pod
# A killed leader's Lease lasts ten seconds more.
_SECONDS_TO_LEAD = 60
_ROOT = Path(__file__).parents[2]


def server_auth(name: str = "notes", system: str = "tokenward-system", **spec: Any) -> Object:
    return {
        "apiVersion": "tokenward.dev/v1alpha1",
        "kind": "MCPServerAuth",
        "metadata": {"name": name},
        "spec": {
            "authServerRef": {"name": "main", "namespace": system},
            "resource": f"https://{name}.mcp.example.com/mcp",
            "upstreams": [{"name": "github"}],
            **spec,
        },
    }


def auth_server(tenants: list[str], **spec: Any) -> Object:
    tenant = {
        "namespaces": {"matchNames": tenants},
        "resources": ["https://*.mcp.example.com/*"],
        "upstreams": ["github"],
    }
    secret = {"name": "github-app", "key": "secret"}
    upstream = {"name": "github", "preset": "github", "clientId": "Iv1", "clientSecretRef": secret}
    return {
        "apiVersion": "tokenward.dev/v1alpha1",
        "kind": "MCPAuthServer",
        "metadata": {"name": "main"},
        "spec": {
            "issuer": "https://auth.example.com",
            "upstreams": [upstream],
            "tenants": [tenant],
            # A test plays the node; a real one would have its own say about the same pods.
            "template": {"nodeSelector": {"tokenward.dev-tests": "nowhere"}},
            **spec,
        },
    }


@dataclass
class Site:
    """`system` is the controller's namespace, `tenant` that of a server."""

    system: Cluster
    tenant: Cluster
    folder: Path
    authservers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def condition(self, kind: str, name: str = "notes") -> tuple[str, str]:
        """Status and reason of an MCPServerAuth's condition."""
        return _condition(self.tenant.get("mcpserverauth", name), kind)

    def auth_condition(self, kind: str) -> tuple[str, str]:
        return _condition(self.system.get("mcpauthserver", "main"), kind)

    def find(self, kind: str, name: str) -> Mapping[str, Any] | None:
        return self.system.get(kind.lower(), name)

    # What a node does.

    def end_checks(self) -> bool:
        """Run each Job of ours as a kubelet would, and write its outcome; whether there was one."""
        found = json.loads(self.system.inside("get", "jobs", "-o", "json"))["items"]
        waiting = [one for one in found if not one.get("status", {}).get("conditions")]
        for job in waiting:
            spec = job["spec"]["template"]["spec"]
            with contextlib.suppress(KeyError):  # a volume's object is not there yet
                code, message = self._run(spec, job["metadata"]["name"])
                self._finish(job["metadata"]["name"], code, message)
        return bool(waiting)

    def _run(self, spec: Mapping[str, Any], name: str) -> tuple[int, str]:
        """The exit code, and what a kubelet keeps: the termination message, or else the log."""
        folder = self.folder / name
        mount(spec, self.find, folder)
        log = folder / "dev/termination-log"
        log.parent.mkdir(exist_ok=True)
        done = subprocess.run(
            self._command(spec, folder), cwd=_ROOT, capture_output=True, text=True, check=False
        )
        message = log.read_text() if log.exists() else done.stderr
        return done.returncode, message[:4096]

    def _finish(self, name: str, code: int, message: str) -> None:
        """The pods say it first, and the Job controller then has seen them."""
        pods = json.loads(self.system.inside("get", "pods", "-o", "json"))["items"]
        for pod in pods:
            if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") != name:
                continue
            state = {"terminated": {"exitCode": code, "message": message}}
            status = {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [_container_status("authserver", state)],
            }
            self.patch_status("pod", pod["metadata"]["name"], status)

    def start_authserver(self) -> None:
        """Run the Deployment's pod on this host, and say that it runs."""
        deployment = self.system.get("deployment", "main")
        assert deployment is not None
        spec = deployment["spec"]["template"]["spec"]
        folder = self.folder / "pod"
        mount(spec, self.find, folder)
        self.authservers.append(subprocess.Popen(self._command(spec, folder), cwd=_ROOT))
        self.say_that_it_runs()

    @property
    def volume(self) -> str:
        return f"tokenward-{self.tenant.suffix}"

    def make_volume(self) -> None:
        """A PersistentVolume that the claim is bound to."""
        claim = self.system.get("pvc", "main")
        assert claim is not None
        made = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": self.volume},
            "spec": {
                "capacity": claim["spec"]["resources"]["requests"],
                "accessModes": claim["spec"]["accessModes"],
                "storageClassName": claim["spec"].get("storageClassName", ""),
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": self.system.namespace, "name": "main"},
                "hostPath": {"path": "/tokenward"},
            },
        }
        self.system.apply_everywhere(made)

    def remount(self) -> None:
        """What a kubelet does once a minute."""
        deployment = self.system.get("deployment", "main")
        assert deployment is not None
        spec = deployment["spec"]["template"]["spec"]
        spec["containers"][0]["volumeMounts"] = [
            one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "resources"
        ]
        mount(spec, self.find, self.folder / "pod")

    def say_that_it_runs(self) -> None:
        for pod in self.authserver_pods():
            status = {
                "phase": "Running",
                "podIP": ADDRESS,
                "podIPs": [{"ip": ADDRESS}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [_container_status("authserver", {"running": {}}, ready=True)],
            }
            self.patch_status("pod", pod["metadata"]["name"], status)

    def authserver_pods(self) -> list[Object]:
        selector = "app.kubernetes.io/name=tokenward-authserver"
        found = json.loads(self.system.inside("get", "pods", "-l", selector, "-o", "json"))
        pods: list[Object] = found["items"]
        return pods

    def patch_status(self, kind: str, name: str, status: Mapping[str, Any]) -> None:
        change = json.dumps({"status": status})
        arguments = ("--subresource=status", "--type=merge", "-p", change)
        self.system.inside("patch", kind, name, *arguments)

    def _command(self, spec: Mapping[str, Any], folder: Path) -> list[str]:
        """The container's command, with paths and addresses of this host."""
        config = folder / "etc/tokenward/authserver.yaml"
        config.write_text(localised(config.read_text(), folder, ADDRESS))
        arguments = [
            str(folder) + one if one.startswith("/") else one
            for one in spec["containers"][0]["args"]
        ]
        (folder / "var/lib/tokenward").mkdir(parents=True, exist_ok=True)
        return [sys.executable, "-m", "authserver", *arguments]


def _container_status(name: str, state: Mapping[str, Any], *, ready: bool = False) -> Object:
    return {
        "name": name, "state": state, "ready": ready, "started": ready, "restartCount": 0,
        "image": "", "imageID": "",
    }  # fmt: skip


def _condition(found: Object | None, kind: str) -> tuple[str, str]:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    for one in conditions:
        if one["type"] == kind:
            return one["status"], one["reason"]
    return "", ""


def apply_crds(cluster: Cluster) -> None:
    cluster.run("apply", "-k", str(MANIFESTS / "crds"))
    until_established(
        cluster, "crd/mcpauthservers.tokenward.dev", "crd/mcpserverauths.tokenward.dev"
    )


def until_established(cluster: Cluster, *definitions: str) -> None:
    """`kubectl wait` gives up at once on a definition that has no condition yet."""

    def established() -> bool:
        try:
            cluster.run("wait", "--for=condition=Established", *definitions)
        except Refused:
            return False
        return True

    eventually(established, bool)


def access(system: str, suffix: str) -> list[Object]:
    """The shipped access of the controller, for this namespace and under names of this run."""
    names = ("base/controller/access.yaml", "tenant/role-binding.yaml")
    return [one for name in names for one in fitted(name, system, suffix)]


def fitted(name: str, system: str, suffix: str) -> Iterator[Object]:
    """The objects of a file in manifests/, for this namespace and under names of this run."""
    text = (MANIFESTS / name).read_text("utf-8").replace("tokenward-system", system)
    for one in yaml.safe_load_all(text):
        yield _renamed(one, suffix)


def _renamed(one: Object, suffix: str) -> Object:
    if one["kind"].startswith("Cluster"):
        one["metadata"]["name"] += f"-{suffix}"
    if one.get("roleRef", {}).get("kind") == "ClusterRole":
        one["roleRef"]["name"] += f"-{suffix}"
    return one


def kubeconfig_of(system: Cluster, folder: Path) -> Path:
    """A kubeconfig of the controller's ServiceAccount."""
    found: Object = yaml.safe_load(system.run("config", "view", "--raw", "--minify", "--flatten"))
    token = system.inside("create", "token", "tokenward-controller").split()[0]
    found["users"][0]["user"] = {"token": token}
    file = folder / "controller.kubeconfig"
    file.touch(0o600)
    file.write_text(yaml.safe_dump(found))
    return file


@contextlib.contextmanager
def controller(
    kubeconfig: Path, system: Cluster, folder: Path, kill_after: float | None = None
) -> Iterator[Path]:
    """`python -m controller` until the end of the block; its log.

    With `kill_after` it is killed that many seconds after it leads, or at the end of the block.
    """
    with replica(kubeconfig, system, folder) as (process, log):
        killer = _killer(process, log, kill_after) if kill_after is not None else None
        try:
            yield log
        finally:
            if killer is not None:
                killer.join()


@contextlib.contextmanager
def replica(
    kubeconfig: Path, system: Cluster, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process of a controller, and its log in `folder`; ended with the block."""
    config, log = folder / "controller.yaml", folder / "controller.log"
    settings = {
        "namespace": system.namespace,
        "authserverImage": "registry.example.com/tokenward/authserver:1",
        "webhook": {"authServer": "main", "configuration": {"image": SIDECAR}},
        "listeners": {"ops": {"host": "127.0.0.1", "port": 0}},
    }
    config.write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}  # noqa: TID251 - passed on
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "controller", "--config", str(config)],
            cwd=_ROOT, env=environment, stderr=stderr,
        )  # fmt: skip
        try:
            yield process, log
        finally:
            process.terminate()
            process.wait()


def _killer(process: subprocess.Popen[bytes], log: Path, after: float) -> Thread:
    """Kills the process that many seconds after it has become the leader."""
    before = log.read_text().count('"leading"')

    def kill() -> None:
        end = monotonic() + _SECONDS_TO_LEAD
        while log.read_text().count('"leading"') == before and monotonic() < end:
            sleep(0.1)
        sleep(after)
        process.kill()

    thread = Thread(target=kill, daemon=True)
    thread.start()
    return thread


def refused(cluster: Cluster, made: Object) -> str:
    """Why the API server does not take it; empty if it does."""
    try:
        cluster.inside("create", "-f", "-", "--dry-run=server", given=made)
    except Refused as told:
        return str(told)
    return ""
