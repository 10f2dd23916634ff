"""Starts etcd, kube-apiserver and kube-controller-manager, and waits until they work."""

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.cluster.control_plane import audit
from tests.cluster.control_plane.certificates import Authority, KeyPair, service_account_keys
from tests.cluster.control_plane.kubeconfig import write_kubeconfig
from tests.cluster.control_plane.processes import Processes

_LOOPBACK: Final = "127.0.0.1"
_SERVICE_RANGE: Final = "10.96.0.0/16"
_SERVICE_ADDRESS: Final = "10.96.0.1"  # the API server's own Service: the range's first address
_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_PROBE_SECONDS: Final = 5.0

# Kubernetes binds this group to cluster-admin in every cluster.
_ADMINISTRATORS: Final = "system:masters"


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    kubeconfig: Path  # of its administrator
    url: str  # of the API server
    folder: Path
    cluster_ca: Authority
    processes: Processes

    @property
    def audit_log(self) -> Path:
        """What ServiceAccounts asked of the API server, one event a line."""
        return self.folder / audit.FILE

    def kubeconfig_of(self, component: str, *groups: str) -> Path:
        """The kubeconfig of a component under its well-known user name, `system:COMPONENT`."""
        client = self.cluster_ca.client(f"system:{component}", *groups)
        path = self.folder / f"{component.replace(':', '-')}.kubeconfig"
        return write_kubeconfig(path, self.url, self.cluster_ca.files.certificate, client)


@dataclass(frozen=True)
class _Ports:
    etcd: int
    etcd_peer: int
    api_server: int
    controller_manager: int


@dataclass(frozen=True)
class _Pki:
    """Three authorities: a certificate for one purpose proves nothing for another."""

    etcd: Authority
    cluster: Authority
    front_proxy: Authority
    service_accounts: KeyPair


@contextmanager
def running(
    programs: Mapping[str, Path], folder: Path, address: str = _LOOPBACK
) -> Iterator[ControlPlane]:
    """A control plane with its data, certificates and logs in `folder`.

    `programs` are paths by name. The API server listens on `address`, everything else on loopback.
    Raises ProcessFailed when a program does not become ready. At the end everything is stopped;
    the folder is the caller's to remove.
    """
    ports, pki = _free_ports(address), _make_pki(folder)
    url = f"https://{address}:{ports.api_server}"
    with Processes(folder) as processes:
        administrator = pki.cluster.client("kubernetes-admin", _ADMINISTRATORS)
        answers = partial(_answers, authority=pki.cluster, client=administrator)
        admin = write_kubeconfig(
            folder / "admin.kubeconfig", url, pki.cluster.files.certificate, administrator
        )
        plane = ControlPlane(admin, url, folder, pki.cluster, processes)
        _start_etcd(processes, programs["etcd"], folder, ports, pki)
        _start_api_server(processes, programs["kube-apiserver"], folder, address, ports, pki)
        processes.wait_until("kube-apiserver", lambda: answers(f"{url}/readyz"))
        _start_controller_manager(plane, programs["kube-controller-manager"], ports, pki)
        # The last thing that a new cluster needs before pods can be made in it.
        account = f"{url}/api/v1/namespaces/default/serviceaccounts/default"
        processes.wait_until("kube-controller-manager", lambda: answers(account))
        yield plane


def _free_ports(api_server_address: str) -> _Ports:
    addresses = (_LOOPBACK, _LOOPBACK, api_server_address, _LOOPBACK)
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in addresses]
        for each, address in zip(sockets, addresses, strict=True):
            each.bind((address, 0))
        return _Ports(*(each.getsockname()[1] for each in sockets))


def _make_pki(folder: Path) -> _Pki:
    def authority(name: str) -> Authority:
        (folder / name).mkdir(mode=0o700)
        return Authority(folder / name, f"{name}-ca")

    cluster = authority("kubernetes")
    keys = service_account_keys(folder / "kubernetes")
    return _Pki(authority("etcd"), cluster, authority("front-proxy"), keys)


def _start_etcd(
    processes: Processes, program: Path, folder: Path, ports: _Ports, pki: _Pki
) -> None:
    ca, own = pki.etcd.files.certificate, pki.etcd.server("etcd", _LOOPBACK, "localhost")
    url, peer_url = f"https://{_LOOPBACK}:{ports.etcd}", f"https://{_LOOPBACK}:{ports.etcd_peer}"
    options = {
        "name": "tokenward",
        "data-dir": folder / "etcd" / "data",
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": peer_url,
        "initial-advertise-peer-urls": peer_url,
        "initial-cluster": f"tokenward={peer_url}",
        "cert-file": own.certificate,
        "key-file": own.key,
        "trusted-ca-file": ca,
        "client-cert-auth": "true",
        "peer-cert-file": own.certificate,
        "peer-key-file": own.key,
        "peer-trusted-ca-file": ca,
        "peer-client-cert-auth": "true",
        "unsafe-no-fsync": "true",  # the data ends with the run
    }
    processes.start("etcd", [program, *_flags(options)])
    client = pki.etcd.client("probe")
    processes.wait_until("etcd", partial(_answers, f"{url}/health", pki.etcd, client))


def _start_api_server(
    processes: Processes, program: Path, folder: Path, address: str, ports: _Ports, pki: _Pki
) -> None:
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    serving = pki.cluster.server("kube-apiserver", *names, _LOOPBACK, address, _SERVICE_ADDRESS)
    to_etcd = pki.etcd.client("kube-apiserver-etcd-client")
    to_kubelet = pki.cluster.client("kube-apiserver-kubelet-client", _ADMINISTRATORS)
    front_proxy = pki.front_proxy.client("front-proxy-client")
    options = {
        "bind-address": address,
        "secure-port": ports.api_server,
        "tls-cert-file": serving.certificate,
        "tls-private-key-file": serving.key,
        "client-ca-file": pki.cluster.files.certificate,
        "etcd-servers": f"https://{_LOOPBACK}:{ports.etcd}",
        "etcd-cafile": pki.etcd.files.certificate,
        "etcd-certfile": to_etcd.certificate,
        "etcd-keyfile": to_etcd.key,
        "kubelet-client-certificate": to_kubelet.certificate,
        "kubelet-client-key": to_kubelet.key,
        "kubelet-preferred-address-types": "InternalIP",  # nothing resolves the node's name
        "requestheader-client-ca-file": pki.front_proxy.files.certificate,
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": front_proxy.certificate,
        "proxy-client-key-file": front_proxy.key,
        "service-account-issuer": _ISSUER,
        "service-account-key-file": pki.service_accounts.certificate,
        "service-account-signing-key-file": pki.service_accounts.key,
        "service-cluster-ip-range": _SERVICE_RANGE,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        # Endpoints of a Service may not lie on loopback.
        "endpoint-reconciler-type": "none" if address == _LOOPBACK else "lease",
        # Nothing forwards a Service's address on this host: webhooks are called at the pod's.
        "enable-aggregator-routing": "true",
        **audit.options(folder),
    }
    processes.start("kube-apiserver", [program, *_flags(options)])


def _start_controller_manager(plane: ControlPlane, program: Path, ports: _Ports, pki: _Pki) -> None:
    own = plane.kubeconfig_of("kube-controller-manager")
    serving = pki.cluster.server("kube-controller-manager", _LOOPBACK, "localhost")
    options = {
        "kubeconfig": own,
        "authentication-kubeconfig": own,
        "authorization-kubeconfig": own,
        "bind-address": _LOOPBACK,
        "secure-port": ports.controller_manager,
        "tls-cert-file": serving.certificate,
        "tls-private-key-file": serving.key,
        "client-ca-file": pki.cluster.files.certificate,
        "requestheader-client-ca-file": pki.front_proxy.files.certificate,
        "cluster-signing-cert-file": pki.cluster.files.certificate,
        "cluster-signing-key-file": pki.cluster.files.key,
        "root-ca-file": pki.cluster.files.certificate,
        "service-account-private-key-file": pki.service_accounts.key,
        "service-cluster-ip-range": _SERVICE_RANGE,
        "use-service-account-credentials": "true",
        "leader-elect": "false",
    }
    plane.processes.start("kube-controller-manager", [program, *_flags(options)])


def _flags(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _answers(url: str, authority: Authority, client: KeyPair) -> bool:
    """Whether this URL, behind mutual TLS, answers 200."""
    tls = ssl.create_default_context(cafile=authority.files.certificate)
    tls.load_cert_chain(client.certificate, client.key)
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS, context=tls) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
