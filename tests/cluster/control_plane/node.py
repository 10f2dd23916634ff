"""Adds one node to a control plane: kube-scheduler here, everything else in namespaces.

containerd, kubelet, kube-proxy and CoreDNS run there, so Services and their names work in pods.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from release.oci import Image
from tests.cluster.control_plane.cgroups import control_group
from tests.cluster.control_plane.control_plane import ControlPlane
from tests.cluster.control_plane.images import PAUSE
from tests.cluster.control_plane.network import NodeNetwork
from tests.cluster.control_plane.processes import Processes

_ROOT: Final = Path(__file__).resolve().parents[3]
_NAME: Final = "node"
_DOMAIN: Final = "cluster.local"
_VOLUMES: Final = 16
_STORAGE_CLASS: Final[dict[str, Any]] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "local",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}
_SYNC_SECONDS: Final = 10  # how late a changed Secret may be; the default is a minute


@dataclass(frozen=True)
class NodePlan:
    """What the first process inside the node's namespaces needs to know; written as JSON."""

    containerd_config: str
    commands: dict[str, list[str]]  # by the program's name, in the order of their start
    images: list[dict[str, Any]]


@contextmanager
def node(
    plane: ControlPlane,
    network: NodeNetwork,
    programs: Mapping[str, Path],
    images: Sequence[Image],
) -> Iterator[Processes]:
    """One node that is Ready, with these images. Needs root, containerd, runc and CNI's plugins.

    At the end the kernel ends the containers: all of them live in the process namespace of the
    node's first process.
    """
    folder = plane.folder / _NAME
    folder.mkdir()
    with control_group(f"{network.name}-node") as group, Processes(folder) as processes:
        _start_scheduler(processes, plane, programs["kube-scheduler"])
        plan = _plan(plane, network, folder, programs, group, images)
        written = _write(folder / "plan.json", json.dumps(asdict(plan)))
        processes.start(_NAME, _in_namespaces(network, written))
        processes.wait_until(_NAME, partial(_is_ready, plane, programs["kubectl"]))
        _offer_volumes(plane, programs["kubectl"], folder / "volumes")
        yield processes


def _in_namespaces(network: NodeNetwork, plan: Path) -> list[str]:
    """The command that runs the node's first process as number 1 of its own process namespace."""
    join = ["nsenter", f"--net={network.path}", "--"]
    leave = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"]
    # Were we killed, the node would end too.
    alone = [*leave, "--kill-child", "--"]
    first = [sys.executable, "-m", "tests.cluster.control_plane.first_process", str(plan)]
    return [*join, *alone, "env", f"PYTHONPATH={_ROOT}", *first]


def _start_scheduler(processes: Processes, plane: ControlPlane, program: Path) -> None:
    own = plane.kubeconfig_of("kube-scheduler")
    options = {
        "kubeconfig": own,
        "authentication-kubeconfig": own,
        "authorization-kubeconfig": own,
        "bind-address": "127.0.0.1",
        "secure-port": 0,
        "leader-elect": "false",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    processes.start("kube-scheduler", [program, *flags])


def _plan(
    plane: ControlPlane,
    network: NodeNetwork,
    folder: Path,
    programs: Mapping[str, Path],
    group: str,
    images: Sequence[Image],
) -> NodePlan:
    _write(folder / "cni" / "10-bridge.conflist", json.dumps(_cni(network)))
    config = _write(folder / "containerd.toml", _containerd(folder))
    serving = plane.cluster_ca.server("kubelet", _NAME, network.node_address)
    kubelet_config = _kubelet(plane, network, group, folder)
    kubelet_config["tlsCertFile"] = str(serving.certificate)
    kubelet_config["tlsPrivateKeyFile"] = str(serving.key)
    options = {
        "config": _write(folder / "kubelet.yaml", json.dumps(kubelet_config)),  # JSON is YAML
        "kubeconfig": plane.kubeconfig_of(f"node:{_NAME}", "system:nodes"),
        "hostname-override": _NAME,
        "node-ip": network.node_address,
        "root-dir": folder / "kubelet",
    }
    kubelet = [str(programs["kubelet"]), *(f"--{name}={value}" for name, value in options.items())]
    proxy_config = _write(folder / "kube-proxy.yaml", json.dumps(_kube_proxy(plane, network)))
    zone = _write(folder / "Corefile", _corefile(plane, network))
    commands = {
        "kubelet": kubelet,
        "kube-proxy": [str(programs["kube-proxy"]), f"--config={proxy_config}"],
        "coredns": [str(programs["coredns"]), "-conf", str(zone)],
    }
    known = [
        {"archive": str(one.archive), "name": one.name, "names": names_on_the_node(one)}
        for one in images
    ]
    return NodePlan(str(config), commands, known)


def _kubelet(plane: ControlPlane, network: NodeNetwork, group: str, folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.node_address,
        "authentication": {
            "x509": {"clientCAFile": str(plane.cluster_ca.files.certificate)},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "resolvConf": str(_write(folder / "resolv.conf", "nameserver 192.0.2.1\n")),
        "clusterDNS": [network.node_address],
        "clusterDomain": _DOMAIN,
        "podLogsDir": str(folder / "logs"),
        "syncFrequency": f"{_SYNC_SECONDS}s",
        "imageGCHighThresholdPercent": 100,  # images cannot be pulled again
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
    }


def _kube_proxy(plane: ControlPlane, network: NodeNetwork) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(plane.kubeconfig_of("kube-proxy"))},
        "mode": "iptables",
        "clusterCIDR": network.pod_range,
        "hostnameOverride": _NAME,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # These limits are of the whole host, and not ours to set.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _corefile(plane: ControlPlane, network: NodeNetwork) -> str:
    # Its own account would need a role; this one reads everything, and serves this cluster only.
    access = plane.kubeconfig_of("coredns", "system:masters")
    return f""".:53 {{
  bind {network.node_address}
  errors
  kubernetes {_DOMAIN} in-addr.arpa {{
    kubeconfig {access}
  }}
}}
"""


def _offer_volumes(plane: ControlPlane, kubectl: Path, folder: Path) -> None:
    """A default StorageClass, and volumes of it: folders on this host, which end with the run."""
    made = [_STORAGE_CLASS]
    for number in range(_VOLUMES):
        path = folder / str(number)
        path.mkdir(parents=True)
        made.append(_volume(number, path))
    subprocess.run(
        [str(kubectl), "--kubeconfig", str(plane.kubeconfig), "apply", "-f", "-"],
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}),
        capture_output=True,
        text=True,
        check=True,
    )


def _volume(number: int, path: Path) -> dict[str, Any]:
    """A local volume: unlike a hostPath, the kubelet sets its group to the pod's fsGroup."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"local-{number}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOncePod"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _STORAGE_CLASS["metadata"]["name"],
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def names_on_the_node(image: Image) -> list[str]:
    """By digest, and as a node reads the names in `manifests/`, which name no registry."""
    short = image.name.partition("/")[2]
    local = [f"docker.io/{short}"] if short.startswith("tokenward/") else []
    return [image.by_digest, *local]


def _containerd(folder: Path) -> str:
    # Restricted, for lowering the score needs a capability that not every root has.
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[{cri}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "{_cni_plugins()}"
  conf_dir = "{folder}/cni"
"""


def _cni_plugins() -> str:
    """Debian's folder, or the one that every other packaging uses."""
    return next((p for p in ("/usr/lib/cni", "/opt/cni/bin") if os.path.isdir(p)), "/opt/cni/bin")


def _cni(network: NodeNetwork) -> dict[str, Any]:
    ranges = [[{"subnet": network.pod_range}]]
    addresses = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    # Hairpin: a pod may call a Service that leads back to it.
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


def _is_ready(plane: ControlPlane, kubectl: Path) -> bool:
    ready = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    command = [
        str(kubectl),
        "--kubeconfig",
        str(plane.kubeconfig),
        "get",
        "node",
        _NAME,
        "-o",
        ready,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout == "True"


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    return path
