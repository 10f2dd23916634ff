"""Source CertManager: cert-manager's own definitions, and its own controllers."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authserver.internal.svid import SvidReader
from controller.issuing import authority, rotation
from controller.issuing.authority import Authority, new_key
from tests.cluster.audit_log import log_file, requests_of
from tests.cluster.cluster import Cluster, Object, eventually
from tests.cluster.control_plane.programs import CERT_MANAGER, build, cache_folder, source_of
from tests.cluster.controller import (
    Site,
    auth_server,
    controller,
    fitted,
    kubeconfig_of,
    server_auth,
    until_established,
)
from tests.fakes.cert_manager import signed
from tests.support.controller_rights import CERT_MANAGER_ROLE, granted

pytestmark = [
    pytest.mark.skipif(
        "TOKENWARD_TEST_DISPOSABLE" not in os.environ,  # noqa: TID251 - how a person says it
        reason="installs definitions into the whole cluster",
    ),
    pytest.mark.timeout(300),
]

_CERTIFICATE = "certificate.cert-manager.io"
_BINDING = "tenant/cert-manager/role-binding.yaml"


@pytest.fixture(scope="module")
def definitions() -> Cluster:
    """cert-manager's CustomResourceDefinitions, as its Go module has them."""
    made = Cluster("default")
    for file in sorted((source_of(CERT_MANAGER) / "deploy/crds").glob("*.yaml")):
        made.run("apply", "--server-side", "-f", str(file))
        until_established(made, "-f", str(file))
    return made


@pytest.fixture
def by() -> Authority:
    """The authority of a ClusterIssuer."""
    purpose = authority.workloads("cluster.local")
    year = timedelta(days=365)
    return authority.create(purpose, key=new_key(), now=datetime.now(UTC), lifetime=year)


@pytest.fixture
def cert_manager_site(site: Site, definitions: Cluster, by: Authority) -> Site:
    """A server whose certificate comes from the ClusterIssuer of this run."""
    _secret(site.system, "corp-ca", {"ca.crt": by.certificate_pem})
    issuer = {"name": site.tenant.namespace}
    certificates = {
        "workloads": {"source": "CertManager", "duration": "1h", "issuerRef": issuer},
        "authorities": {"workloads": {"secretRef": {"name": "corp-ca"}}},
    }
    made = auth_server([site.tenant.namespace], certificates=certificates)
    site.system.inside("create", "-f", "-", given=made)
    site.tenant.inside("create", "-f", "-", given=server_auth(system=site.system.namespace))
    return site


def _secret(where: Cluster, name: str, data: dict[str, bytes], kind: str = "Opaque") -> None:
    made = {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name}}
    where.inside("apply", "-f", "-", given={**made, "data": rotation.encoded(data)})


def _prepare(site: Site) -> None:
    for one in fitted(_BINDING, site.system.namespace, site.tenant.suffix):
        site.tenant.inside("apply", "-f", "-", given=one)


def _certificate(site: Site) -> Object:
    found = eventually(lambda: site.tenant.get(_CERTIFICATE, "notes-tokenward"), bool)
    assert found is not None
    return found


def _leaf(site: Site) -> x509.Certificate:
    found: Any = site.tenant.get("secret", "notes-tokenward")
    return x509.load_pem_x509_certificates(rotation.decoded(found)["tls.crt"])[0]


def _say(site: Site, status: str, reason: str, message: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now,
    }  # fmt: skip
    change = json.dumps({"status": {"conditions": [ready]}})
    site.tenant.inside(
        "patch", _CERTIFICATE, "notes-tokenward", "--subresource=status", "--type=merge",
        "-p", change,
    )  # fmt: skip


def _give(site: Site, by: Authority, spec: dict[str, Any], **changes: Any) -> None:
    """As cert-manager writes the Secret."""
    hour = timedelta(hours=1)
    data = signed(spec, by, datetime.now(UTC), lifetime=hour, **changes)
    meta = {
        "name": spec["secretName"],
        "labels": spec["secretTemplate"]["labels"],
        "annotations": {"cert-manager.io/certificate-name": spec["secretName"]},
    }
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
    site.tenant.inside("apply", "-f", "-", given={**kind, "metadata": meta, "data": data})


def test_a_certificate_is_asked_for_and_only_a_fit_one_is_taken(
    cert_manager_site: Site, by: Authority, tmp_path: Path
) -> None:
    site = cert_manager_site
    log = log_file()
    with controller(kubeconfig_of(site.system, tmp_path), site.system, tmp_path):
        eventually(
            lambda: site.condition("CertificateReady"),
            lambda c: c == ("False", "NamespaceNotPrepared"),
        )
        _prepare(site)
        # It looks again once a minute; a change of the object is looked at at once.
        site.tenant.inside("annotate", "msa", "notes", "example.com/touched=yes")
        spec = _certificate(site)["spec"]
        workload = f"spiffe://cluster.local/ns/{site.tenant.namespace}/mcpserver/notes"
        assert spec["uris"] == [workload]
        assert spec["usages"] == ["digital signature", "client auth"]
        assert (spec["duration"], spec["renewBefore"]) == ("1h0m0s", "0h20m0s")
        assert spec["issuerRef"]["kind"] == "ClusterIssuer"
        _say(site, "False", "Pending", "the policy denies it")
        eventually(lambda: _told(site), lambda told: "the policy denies it" in told)
        assert site.condition("CertificateReady") == ("False", "WaitingForIssuer")
        _give(site, by, spec, names=[x509.UniformResourceIdentifier(workload + "-2")])
        _say(site, "True", "Ready", "up to date")
        unfit = ("False", "CertificateUnfit")
        eventually(lambda: site.condition("CertificateReady"), lambda c: c == unfit)
        assert "has other names than" in _told(site)
        _give(site, by, spec)
        eventually(lambda: site.condition("CertificateReady"), lambda c: c == ("True", "Issued"))
        assert _expiry(site) == f"{_leaf(site).not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if log is not None:
        account = f"{site.system.namespace}/tokenward-controller"
        asked = [one for one in requests_of(log, account) if one.group == "cert-manager.io"]
        denied = {one.verb for one in asked if one.code == 403}
        assert denied <= {"get", "list"}  # before the namespace was prepared
        used = {one.verb for one in asked if one.code < 300}
        used |= {"create" for one in asked if one.verb == "patch" and one.code == 201}
        may = {right[3] for right in granted([CERT_MANAGER_ROLE]) if right[1] == "cert-manager.io"}
        assert used - may == set()


def _told(site: Site) -> str:
    found: Any = site.tenant.get("msa", "notes")
    return json.dumps(found.get("status", {}))


def _expiry(site: Site) -> str:
    found: Any = site.tenant.get("msa", "notes")
    return str(found["status"].get("certificateExpiry", ""))


@pytest.fixture
def real_cert_manager(definitions: Cluster, tmp_path: Path) -> Iterator[None]:
    """Its controllers, on this host."""
    program = build(cache_folder(os.environ), CERT_MANAGER, "cert-manager", ".")  # noqa: TID251
    with (tmp_path / "cert-manager.log").open("wb") as log:
        process = subprocess.Popen([program], stdout=log, stderr=log)
        try:
            yield
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait()


def _cluster_issuer(site: Site, by: Authority) -> Object:
    name = site.tenant.namespace
    pair = {"tls.crt": by.certificate_pem, "tls.key": authority.key_pem(by.key)}
    _secret(Cluster("kube-system"), name, pair, "kubernetes.io/tls")
    kind = {"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer"}
    return {**kind, "metadata": {"name": name}, "spec": {"ca": {"secretName": name}}}


@pytest.mark.timeout(2400)  # the first run builds cert-manager
def test_a_real_cert_manager_issues_and_renews(
    cert_manager_site: Site, real_cert_manager: None, by: Authority, tmp_path: Path
) -> None:
    site = cert_manager_site
    _prepare(site)
    issuer = _cluster_issuer(site, by)
    site.system.apply_everywhere(issuer)
    try:
        with controller(kubeconfig_of(site.system, tmp_path), site.system, tmp_path):
            eventually(
                lambda: site.condition("CertificateReady"), lambda c: c == ("True", "Issued"), 120
            )
            first = _leaf(site)
            reader = SvidReader("cluster.local", max_lifetime=86400, own_names=())
            svid = reader.read(first.public_bytes(Encoding.DER))
            assert svid.workload.name == "notes"
            trusted: Any = eventually(
                lambda: site.system.get("configmap", "main-workload-authorities"), bool
            )
            assert by.certificate_pem.decode() in trusted["data"]["ca.crt"]
            _renew(site)
            eventually(lambda: _leaf(site) != first, bool, 120)
            eventually(lambda: _told(site), lambda told: f"{_leaf(site).serial_number:X}" in told)
            assert site.condition("CertificateReady") == ("True", "Issued")
    finally:
        site.system.run("delete", "clusterissuer", issuer["metadata"]["name"])
        Cluster("kube-system").inside("delete", "secret", issuer["metadata"]["name"])


def _renew(site: Site) -> None:
    """As `cmctl renew` asks for it."""
    found = _certificate(site)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    issuing = {
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "",
        "lastTransitionTime": now,
    }  # fmt: skip
    change = json.dumps({"status": {"conditions": [*found["status"]["conditions"], issuing]}})
    site.tenant.inside(
        "patch", _CERTIFICATE, "notes-tokenward", "--subresource=status", "--type=merge",
        "-p", change,
    )  # fmt: skip
