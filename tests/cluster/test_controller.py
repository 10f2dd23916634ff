"""The controller against a real API server, with the rights that the manifests give it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Object, eventually
from tests.cluster.controller import (
    Site,
    auth_server,
    controller,
    kubeconfig_of,
    refused,
    server_auth,
)

_LABELS = {"namespaces": {"matchLabels": {"a": "b"}, "matchNames": ["a"]}}


def _changed(made: Object, path: str, value: Any) -> Object:
    result = copy.deepcopy(made)
    *parents, last = path.split(".")
    where: Any = result
    for name in parents:
        where = where[int(name)] if name.isdecimal() else where[name]
    where[last] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("metadata.name", "UPPER", "metadata.name"),
        ("metadata.name", "a" * 54, "at most 53 characters"),
        ("spec.resource", "http://notes.example.com/mcp", "spec.resource"),
        ("spec.resource", "https://notes.example.com/mcp#x", "no fragment"),
        ("spec.resource", "https://user@notes.example.com/", "spec.resource"),
        ("spec.resource", "https://notes.example.com/" + "a" * 512, "spec.resource: Too long"),
        ("spec.upstreams", [], "spec.upstreams"),
        ("spec.upstreams", [{"name": "github", "connect": "WhenNeeded"}], "connected AtSignIn"),
        ("spec.upstreams", [{"name": "Git Hub"}], "spec.upstreams[0].name"),
        ("spec.upstreams", [{"name": "a"}, {"name": "a"}], "Duplicate"),
        ("spec.upstreams", [{"name": f"u{n}"} for n in range(17)], "spec.upstreams: Too many"),
        ("spec.release", ["Nothing"], "spec.release[0]"),
        ("spec.release", [], "spec.release"),
        ("spec.scopes", ["a b"], "scope token"),
        ("spec.authServerRef", {"namespace": "x"}, "spec.authServerRef.name"),
        ("spec.unknown", 1, "unknown field"),
        ("spec.networkPolicy", {}, "spec.networkPolicy.ports"),
        ("spec.networkPolicy", {"ports": []}, "spec.networkPolicy.ports"),
        ("spec.networkPolicy", {"ports": [65536]}, "spec.networkPolicy.ports[0]"),
        ("spec.networkPolicy", {"ports": [1], "matchLabels": {"a b": "c"}}, "labels of pods"),
        ("spec.networkPolicy", {"ports": [1], "matchLabels": {"a": "c d"}}, "labels of pods"),
        (
            "spec.networkPolicy",
            {"ports": [1], "matchLabels": {"tokenward.dev/injected": "false"}},
            "no label of tokenward.dev/",
        ),
    ],
)
def test_a_bad_mcpserverauth_is_refused_with_field_and_rule(
    schemas: Cluster, path: str, value: object, words: str
) -> None:
    assert refused(schemas, server_auth()) == ""
    assert words in refused(schemas, _changed(server_auth(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("metadata.name", "1main", "begins with a letter"),
        ("spec.issuer", "http://auth.example.com", "spec.issuer"),
        ("spec.issuer", "https://auth.example.com/", "no trailing slash"),
        ("spec.trustDomain", "spiffe://x", "without spiffe://"),
        ("spec.replicas", 2, "more than one replica needs storage.postgresql"),
        ("spec.replicas", 0, "spec.replicas"),
        ("spec.upstreams.0.name", "Git", "spec.upstreams[0].name"),
        ("spec.upstreams", [{"name": "x", "clientId": "y"}], "needs preset, or type"),
        ("spec.tenants.0.namespaces", {}, "either matchNames or matchLabels"),
        ("spec.tenants.0.namespaces", _LABELS["namespaces"], "either matchNames or matchLabels"),
        ("spec.tenants.0.resources", ["http://x/"], "spec.tenants[0].resources[0]"),
        ("spec.tenants.0.resources", [], "spec.tenants[0].resources"),
        ("spec.storage", {"sqlite": {}, "postgresql": {"url": "postgresql://x"}}, "either sqlite"),
        ("spec.storage", {"postgresql": {"url": "postgresql://u:p@h/d"}}, "must hold no password"),
        ("spec.storage", {"sqlite": {"size": "much"}}, "quantity such as 1Gi"),
        ("spec.certificates", {"workloads": {"source": "CertManager"}}, "issuerRef goes with"),
        (
            "spec.certificates",
            {"workloads": {"source": "CertManager", "issuerRef": {"name": "corp"}}},
            "needs authorities.workloads.secretRef",
        ),
        (
            "spec.certificates",
            {"server": {"source": "CertManager", "issuerRef": {"name": "corp"}}},
            "needs authorities.servers.secretRef",
        ),
        ("spec.certificates", {"workloads": {"duration": "25h"}}, "from 1h to 24h"),
        ("spec.certificates", {"workloads": {"duration": "9h", "renewBefore": "9h"}}, "shorter"),
        ("spec.certificates", {"server": {"source": "PodCertificate"}}, "spec.certificates.server"),
        ("spec.certificates", {"authorities": {"servers": {"duration": "1h"}}}, "at least 72h"),
        ("spec.keys", {"signingRotation": "1h"}, "at least 72h"),
    ],
)
def test_a_bad_mcpauthserver_is_refused_with_field_and_rule(
    schemas: Cluster, path: str, value: object, words: str
) -> None:
    good = auth_server(["a"])
    assert refused(schemas, good) == ""
    assert words in refused(schemas, _changed(good, path, value))


def test_issuer_and_trust_domain_cannot_change(schemas: Cluster, cluster: Cluster) -> None:
    cluster.inside("create", "-f", "-", given=auth_server(["a"]))
    for change in ({"issuer": "https://other.example.com"}, {"trustDomain": "other.org"}):
        made = auth_server(["a"], **change)
        with pytest.raises(Exception, match="cannot change"):
            cluster.inside("apply", "-f", "-", given=made)


def test_kubectl_explains_every_member(schemas: Cluster) -> None:
    for kind in ("mcpauthservers.spec", "mcpserverauths.spec", "mcpserverauths.status.conditions"):
        told = schemas.run("explain", kind, "--recursive=false")
        assert "<no description>" not in told


def test_ten_lines_become_an_authserver_with_a_programmed_server(
    site: Site, tmp_path: Path
) -> None:
    tenant = site.tenant.namespace
    site.tenant.inside("create", "-f", "-", given=server_auth(system=site.system.namespace))
    with controller(kubeconfig_of(site.system, tmp_path), site.system, tmp_path) as log:
        eventually(lambda: site.condition("Accepted"), lambda c: c == ("False", "NoSuchAuthServer"))
        site.system.inside("create", "-f", "-", given=auth_server([tenant]))
        eventually(lambda: site.condition("CertificateReady"), lambda c: c == ("True", "Issued"))
        eventually(site.end_checks, bool)
        eventually(
            lambda: site.auth_condition("ConfigurationValid"), lambda c: c == ("True", "Valid")
        )
        eventually(site.authserver_pods, bool)
        site.start_authserver()
        site.make_volume()
        eventually(lambda: site.condition("Programmed"), lambda c: c == ("True", "Programmed"))
        site.tenant.inside("wait", "--for=condition=Ready", "msa/notes", "--timeout=30s")
        site.system.inside("wait", "--for=condition=Ready", "mas/main", "--timeout=30s")
        _a_change_reaches_the_authserver(site)
        _what_is_deleted_by_hand_comes_back(site)
        printed = site.tenant.inside("get", "msa", "notes")
        assert "READY" in printed
        assert "https://notes.mcp.example.com/mcp" in printed
        events = site.tenant.inside("get", "events", "-o", "json")
        assert "CertificateIssued" in events
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    broken = [one for one in lines if one["level"] == "error"]
    assert broken == []
    assert not [one for one in lines if one.get("status") == 403]
    assert "PRIVATE KEY" not in log.read_text()


def _a_change_reaches_the_authserver(site: Site) -> None:
    site.tenant.inside("create", "-f", "-", given=server_auth("other", site.system.namespace))
    eventually(lambda: site.condition("CertificateReady", "other"), lambda c: c[0] == "True")
    eventually(
        lambda: site.condition("Programmed", "other"),
        lambda c: c == ("False", "WaitingForAuthServer"),
    )
    mark = "tokenward.dev/resource-map"
    (pod,) = site.authserver_pods()
    assert mark in pod["metadata"]["annotations"]
    site.remount()
    eventually(lambda: site.condition("Programmed", "other"), lambda c: c[0] == "True")
    assert site.condition("Programmed") == ("True", "Programmed")


def _what_is_deleted_by_hand_comes_back(site: Site) -> None:
    before = site.system.get("service", "main")
    assert before is not None
    site.system.inside("delete", "service", "main")
    eventually(lambda: site.system.get("service", "main"), lambda found: bool(found))
    site.system.inside("patch", "service", "main", "-p", '{"spec": {"selector": {"app": "mine"}}}')
    eventually(
        lambda: site.system.get("service", "main"),
        lambda found: (found or {})["spec"]["selector"] == before["spec"]["selector"],
    )
    site.tenant.inside("delete", "msa", "other")
    eventually(lambda: site.tenant.get("secret", "other-tokenward"), lambda found: not found)


def test_a_bad_configuration_is_said_by_the_authserver_itself(site: Site, tmp_path: Path) -> None:
    made = auth_server(["a"], configuration={"lifetimes": {"accessToken": "1s", "unknown": 1}})
    site.system.inside("create", "-f", "-", given=made)
    with controller(kubeconfig_of(site.system, tmp_path), site.system, tmp_path):
        eventually(lambda: site.auth_condition("KeysReady"), lambda c: c[0] == "True")
        for _ in range(2):  # the Job tries twice
            eventually(site.end_checks, bool)
        eventually(
            lambda: (site.end_checks(), site.auth_condition("ConfigurationValid"))[1],
            lambda c: c == ("False", "Invalid"),
        )
        found = site.system.get("mcpauthserver", "main")
        assert found is not None
        told = json.dumps(found["status"])
        assert "lifetimes.accessToken" in told
        assert "lifetimes.unknown" in told
        assert site.system.get("deployment", "main") is None
