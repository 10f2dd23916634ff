"""The rights in the manifests are those that the API server's audit log shows in use."""

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller.issuing import authority, rotation
from controller.issuing.authority import new_key
from tests.cluster.audit_log import Request, log_file, requests_of
from tests.cluster.cluster import Cluster, Object, eventually
from tests.cluster.controller import Site, auth_server, controller, kubeconfig_of, server_auth
from tests.cluster.pods import named
from tests.support.controller_rights import ROLES, Right, granted, normalised

_ADMISSION = "admissionregistration.k8s.io/v1"
_MARK = "tokenward.dev/authserver-ca"
# No call of this name exists: the API server asks for it when a request's status is written.
_ASKED_ONLY = (ROLES[1], "certificates.k8s.io", "signers", "sign")


def rights_of(requests: list[Request], system: str) -> Iterator[Right]:
    for one in requests:
        yield _role(one, system), one.group, one.resource, one.verb
        if one.verb == "patch" and one.code == 201:  # an apply that made the object
            yield _role(one, system), one.group, one.resource, "create"


def _role(one: Request, system: str) -> str:
    if one.resource == "secrets" and one.namespace != system:
        return ROLES[2]
    ours = one.namespace == system and one.group != "tokenward.dev"
    return ROLES[0] if ours else ROLES[1]


@pytest.fixture
def admission(site: Site) -> Iterator[None]:
    """What the controller keeps of the webhook, under its shipped names; nothing refers to it."""
    objects = [_webhook(), _policy("tokenward-guard-controller")]
    objects.append(_policy("tokenward-guard-configuration"))
    for one in objects:
        site.system.apply_everywhere(one)
    yield
    for one in objects:
        site.system.run("delete", one["kind"], one["metadata"]["name"])


def _webhook() -> Object:
    service = {"name": "tokenward-webhook", "namespace": "tokenward-system", "path": "/mutate"}
    webhook = {
        "name": "pods.tokenward.dev", "clientConfig": {"service": service}, "rules": [],
        "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
    }  # fmt: skip
    meta = {"name": "tokenward"}
    kind = "MutatingWebhookConfiguration"
    return {"apiVersion": _ADMISSION, "kind": kind, "metadata": meta, "webhooks": [webhook]}


def _policy(name: str) -> Object:
    rule = {
        "apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["nothings"],
    }  # fmt: skip
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "variables": [{"name": "lines", "expression": "['']"}],
        "validations": [{"expression": "size(variables.lines) > 0"}],
    }
    kind = "ValidatingAdmissionPolicy"
    return {"apiVersion": _ADMISSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.mark.timeout(400)
def test_every_right_is_used_and_every_request_was_permitted(
    site: Site, admission: None, tmp_path: Path
) -> None:
    log = log_file()
    if log is None:
        pytest.skip("the API server writes no audit log here")
    _pod(site.tenant)
    site.system.inside("create", "-f", "-", given=auth_server([site.tenant.namespace]))
    site.tenant.inside("create", "-f", "-", given=server_auth(system=site.system.namespace))
    with controller(kubeconfig_of(site.system, tmp_path), site.system, tmp_path):
        eventually(lambda: site.condition("CertificateReady"), lambda c: c[0] == "True")
        eventually(site.end_checks, bool)
        eventually(site.authserver_pods, bool)
        site.start_authserver()
        eventually(lambda: site.condition("Programmed"), lambda c: c[0] == "True")
        eventually(lambda: _mark(site.tenant), lambda mark: mark != "old")
        _ask_the_signer(site.tenant)
        _spoil_the_credential(site.tenant)
        _replace_a_candidate(site)
        _age_the_signing_key(site.system)
    account = f"{site.system.namespace}/tokenward-controller"
    requests = list(requests_of(log, account))
    assert [one for one in requests if one.code == 403] == []
    used = set(normalised(rights_of(requests, site.system.namespace)))
    assert used - granted() == set()
    assert granted() - used == {_ASKED_ONLY}


def _pod(tenant: Cluster) -> None:
    """As if it were injected; there is no webhook here."""
    made = named("p", {"inject": "false"})
    made["metadata"]["labels"] = {"tokenward.dev/injected": "true"}
    made["metadata"]["annotations"] |= {
        _MARK: "old",
        "tokenward.dev/status": json.dumps({"server": "notes"}),
    }
    made["spec"]["nodeName"] = "nowhere"
    tenant.create(made)


def _mark(tenant: Cluster) -> str:
    pod: Any = tenant.get("pod", "p")
    return str(pod["metadata"]["annotations"][_MARK])


def _ask_the_signer(tenant: Cluster) -> None:
    """The pod has no sidecar, so the answer is a denial, which is an answer too."""
    pod: Any = tenant.get("pod", "p")
    account: Any = tenant.get("serviceaccount", "default")
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    stub = asked.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    spec = {
        "signerName": "tokenward.dev/workload",
        "podName": "p", "podUID": pod["metadata"]["uid"],
        "serviceAccountName": "default", "serviceAccountUID": account["metadata"]["uid"],
        "nodeName": "nowhere", "nodeUID": "0b1f",
        "stubPKCS10Request": b64encode(stub).decode(),
        "maxExpirationSeconds": 86400,
    }  # fmt: skip
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest"}
    tenant.inside("create", "-f", "-", given={**kind, "metadata": {"name": "r"}, "spec": spec})
    eventually(lambda: tenant.get("podcertificaterequest", "r"), lambda o: "status" in (o or {}))


def _spoil_the_credential(tenant: Cluster) -> None:
    """It is put back, and made anew when it is deleted; at once, and not with the next resync."""
    change = [{"op": "replace", "path": "/data", "value": {"tls.crt": "eA==", "tls.key": "eA=="}}]
    tenant.inside("patch", "secret", "notes-tokenward", "--type=json", "-p", json.dumps(change))
    eventually(lambda: _certificate(tenant), lambda text: len(text) > 100)
    tenant.inside("delete", "secret", "notes-tokenward")
    eventually(lambda: _certificate(tenant), lambda text: len(text) > 100)


def _certificate(tenant: Cluster) -> str:
    secret = tenant.get("secret", "notes-tokenward")
    return str((secret or {"data": {}})["data"].get("tls.crt", ""))


def _replace_a_candidate(site: Site) -> None:
    """A candidate is checked, and replaced by another one before its check ends."""
    former: set[str] = set()
    for level in ("debug", "error"):
        changed = auth_server([site.tenant.namespace], configuration={"logLevel": level})
        site.system.inside("apply", "-f", "-", given=changed)
        former = _new_job(site.system, former)
    eventually(lambda: _jobs(site.system), lambda jobs: len(jobs) == 1)


def _new_job(system: Cluster, former: set[str]) -> set[str]:
    """Wait for a Job that was not there before; the Jobs that are there then."""
    return eventually(lambda: _jobs(system), lambda jobs: bool(jobs - former))


def _jobs(system: Cluster) -> set[str]:
    return set(system.inside("get", "jobs", "-o", "name").split())


def _age_the_signing_key(system: Cluster) -> None:
    data = rotation.encoded({"signing-20200101000000.pem": authority.key_pem(new_key())})
    change = [{"op": "replace", "path": "/data", "value": data}]
    system.inside("patch", "secret", "main-signing", "--type=json", "-p", json.dumps(change))
    eventually(lambda: system.get("secret", "main-signing"), lambda o: len((o or {})["data"]) == 2)
