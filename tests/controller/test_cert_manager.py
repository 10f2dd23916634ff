"""Source CertManager: what is asked of cert-manager, and what is taken of what it gives."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from controller.api.kinds import (
    CERTIFICATE,
    CONFIG_MAP,
    MCP_AUTH_SERVER,
    MUTATING_WEBHOOK,
    SECRET,
    Kind,
)
from controller.api.objects import Key
from controller.cluster import ApiError
from controller.issuing import authority, rotation
from controller.issuing.authority import Authority, new_key
from tests.controller.running import MAIN, Site, running
from tests.controller.samples import NOW, SYSTEM, condition
from tests.fakes.cert_manager import CertManager
from tests.support import svid_certificates
from tests.support.svid_certificates import self_signed

WANTED = Key("mcp-servers", "notes-tokenward")
INTERNAL, SERVING = Key(SYSTEM, "main-internal"), Key(SYSTEM, "tokenward-webhook-serving")
SPIFFE_ID = "spiffe://cluster.local/ns/mcp-servers/mcpserver/notes"
YEAR = timedelta(days=365)
ISSUER = {"name": "corp", "kind": "ClusterIssuer", "group": "cert-manager.io"}
WORKLOADS = {"source": "CertManager", "duration": "24h", "issuerRef": ISSUER}
SERVERS = {"source": "CertManager", "duration": "2160h", "issuerRef": ISSUER}
BUILT_IN = {"source": "BuiltIn", "duration": "24h"}


def an_authority(purpose: authority.Purpose) -> Authority:
    return authority.create(purpose, key=new_key(), now=NOW, lifetime=YEAR)


def issuer() -> Authority:
    """Of workloads."""
    return an_authority(authority.workloads("cluster.local"))


def site_with(by: Authority, **certificates: Any) -> tuple[Site, CertManager]:
    """An MCPAuthServer with these sources, which trusts the issuer's authority."""
    site = Site()
    site.put_secret("corp-ca", rotation.encoded({"ca.crt": by.certificate_pem}))
    trust = {"duration": "8760h", "secretRef": {"name": "corp-ca"}}
    site.put_auth_server(
        certificates={
            "workloads": BUILT_IN,
            "server": {"source": "BuiltIn", "duration": "2160h"},
            "authorities": {
                which: trust if section in certificates else {"duration": "8760h"}
                for which, section in (("workloads", "workloads"), ("servers", "server"))
            },
            **certificates,
        }
    )
    site.put_server()
    return site, CertManager(site.api, by, NOW)


def reason(site: Site) -> str:
    status = site.status()
    return condition(status, "CertificateReady")[1] if status else ""


def message(site: Site, kind: str = "CertificateReady") -> str:
    conditions = site.status().get("conditions", ())
    return next((str(one["message"]) for one in conditions if one["type"] == kind), "")


def auth_reason(site: Site) -> str:
    status = site.auth_status()
    return condition(status, "CertificatesReady")[1] if status else ""


def trusted(site: Site) -> str:
    """What the authserver trusts of workloads."""
    found = site.api.objects.get((CONFIG_MAP, Key(SYSTEM, "main-workload-authorities")))
    return str(found["data"]["ca.crt"]) if found is not None else ""


def has(site: Site, key: Key) -> Callable[[], bool]:
    return lambda: (CERTIFICATE, key) in site.api.objects


async def test_conditions_secret_and_renewal_of_a_certificate_are_followed() -> None:
    site, cert_manager = site_with(issuer(), workloads=WORKLOADS)
    async with running(site) as controller:
        await site.until(has(site, WANTED))
        spec = site.api.found(CERTIFICATE, WANTED)["spec"]
        assert spec["uris"] == [SPIFFE_ID]
        assert spec["issuerRef"] == ISSUER
        assert spec["usages"] == ["digital signature", "client auth"]
        assert (spec["duration"], spec["renewBefore"]) == ("24h0m0s", "8h0m0s")
        cert_manager.say(WANTED, "False", "Pending", "the policy denies it")
        await site.until(lambda: "the policy denies it" in message(site))
        assert reason(site) == "WaitingForIssuer"
        cert_manager.issue(WANTED)
        await site.until(lambda: site.is_so("Ready", "True"))
        first = site.status()["certificateExpiry"]
        assert site.status()["secretName"] == WANTED.name
        # An authserver that verifies clients trusts the issuer.
        assert cert_manager.by.certificate_pem.decode() in trusted(site)
        cert_manager.issue(WANTED, lifetime=timedelta(hours=30))
        await site.until(lambda: site.status()["certificateExpiry"] > first)
        assert len(site.status()["certificates"]) == 2
        issued = controller.metrics.certificates.labels("CertManager", "issued")
        assert issued._value.get() == 2
        await site.quiet()
        writes = {(kind, key) for verb, kind, key in site.api.calls if verb in ("apply", "create")}
        assert ("Secret", WANTED) not in writes


ANOTHER = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/mcp-servers/mcpserver/other")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": [ANOTHER]}, f"has other names than {SPIFFE_ID}"),
        (
            {"names": [ANOTHER, x509.UniformResourceIdentifier(SPIFFE_ID)]},
            f"has other names than {SPIFFE_ID}",
        ),
        ({"usage": "server auth"}, "is not for clients"),
        ({"other_key": new_key()}, "the key beside it is of another one"),
    ],
)
async def test_a_secret_that_is_not_as_asked_for_is_a_condition(
    changes: dict[str, Any], words: str
) -> None:
    site, cert_manager = site_with(issuer(), workloads=WORKLOADS)
    async with running(site):
        await site.until(has(site, WANTED))
        cert_manager.issue(WANTED, **changes)
        await site.until(lambda: reason(site) == "CertificateUnfit")
        assert words in message(site)
        assert not site.is_so("Ready", "True")
        assert "certificateExpiry" not in site.status()
        cert_manager.issue(WANTED)
        await site.until(lambda: site.is_so("Ready", "True"))


async def test_a_leaf_of_an_authority_that_the_operator_did_not_name_is_a_condition() -> None:
    site, cert_manager = site_with(issuer(), workloads=WORKLOADS)
    cert_manager.by = issuer()
    async with running(site):
        await site.until(has(site, WANTED))
        cert_manager.issue(WANTED)  # with its own ca.crt beside it
        await site.until(lambda: reason(site) == "CertificateUnfit")
        assert "an authority that its peers do not know" in message(site)
        await site.until(lambda: trusted(site) != "")
        assert cert_manager.by.certificate_pem.decode() not in trusted(site)


def test_a_chain_leads_to_an_authority_through_authorities_only() -> None:
    root = self_signed()
    above = root.issue(svid_certificates.authority())
    leaf = above.issue()
    of_a_leaf = leaf.issue()
    trusted = root.pem()
    assert authority.leads_to(leaf.pem() + above.pem(), trusted)
    assert authority.leads_to(leaf.pem() + above.pem() + root.pem(), trusted)
    assert not authority.leads_to(leaf.pem(), trusted)
    assert not authority.leads_to(of_a_leaf.pem() + leaf.pem() + above.pem(), trusted)
    assert not authority.leads_to(leaf.pem() + root.pem() + above.pem(), self_signed().pem())
    assert not authority.leads_to(self_signed().issue().pem() + above.pem(), trusted)
    assert not authority.leads_to(b"", trusted)


async def test_an_ended_leaf_is_a_condition() -> None:
    site, cert_manager = site_with(issuer(), workloads=WORKLOADS)
    late = CertManager(site.api, cert_manager.by, NOW + timedelta(days=2))
    async with running(site):
        await site.until(has(site, WANTED))
        late.issue(WANTED)
        await site.until(lambda: reason(site) == "CertificateUnfit")
        assert "is not valid now" in message(site)


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [(403, "manifests/tenant/cert-manager", "NamespaceNotPrepared"),
     (404, "install cert-manager", "WaitingForIssuer")],
)  # fmt: skip
async def test_no_right_and_no_cert_manager_are_said(
    status: int, words: str, expected: str
) -> None:
    site, _ = site_with(issuer(), workloads=WORKLOADS)

    def refuse(verb: str, kind: Kind, key: Key) -> None:
        if kind == CERTIFICATE and (status == 403 or verb != "get"):
            raise ApiError(status, "Forbidden" if status == 403 else "NotFound", "")

    site.api.refuse = refuse
    async with running(site):
        await site.until(lambda: reason(site) == expected)
        assert words in message(site)
        assert not site.is_so("Ready", "True")


async def test_without_a_named_authority_nothing_is_issued_and_nothing_trusted() -> None:
    site, _ = site_with(issuer(), workloads=WORKLOADS)
    site.api.remove(SECRET, Key(SYSTEM, "corp-ca"))
    async with running(site):
        await site.until(lambda: reason(site) == "AuthorityNotReady")
        await site.until(lambda: auth_reason(site) == "AuthorityNotReady")
        assert (CERTIFICATE, WANTED) not in site.api.objects


async def test_what_our_own_authority_signed_stays_trusted_when_the_source_changes() -> None:
    site, cert_manager = site_with(issuer())
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        ours = site.api.found(SECRET, Key(SYSTEM, "main-workloads-authority"))
        before = rotation.decoded(ours)["tls.crt"].decode()
        _switch(site, WORKLOADS)
        await site.until(has(site, WANTED))
        await site.until(lambda: cert_manager.by.certificate_pem.decode() in trusted(site))
        assert before in trusted(site)
        cert_manager.issue(WANTED)
        await site.until(lambda: site.is_so("Ready", "True"))


async def test_a_secret_that_cert_manager_keeps_is_not_fought_over() -> None:
    site, cert_manager = site_with(issuer(), workloads=WORKLOADS)
    async with running(site):
        await site.until(has(site, WANTED))
        cert_manager.issue(WANTED)
        await site.until(lambda: site.is_so("Ready", "True"))
        _switch(site, BUILT_IN)
        await site.until(lambda: reason(site) == "SecretNotOurs")
        assert "delete Certificate notes-tokenward, then the Secret" in message(site)
        site.api.remove(CERTIFICATE, WANTED)
        site.api.remove(SECRET, WANTED)
        await site.until(lambda: site.is_so("Ready", "True"))


def _switch(site: Site, workloads: dict[str, Any]) -> None:
    found = site.api.found(MCP_AUTH_SERVER, MAIN)
    certificates = {**found["spec"]["certificates"], "workloads": workloads}
    trust = {"secretRef": {"name": "corp-ca"}} if workloads != BUILT_IN else {}
    certificates["authorities"] = {"workloads": trust, "servers": {}}
    site.api.put({**found, "spec": {**found["spec"], "certificates": certificates}})


async def test_the_webhook_and_the_authserver_serve_with_what_cert_manager_gives() -> None:
    by = an_authority(authority.servers(SYSTEM, "cluster.local"))
    site, cert_manager = site_with(by, server=SERVERS)
    webhooks = [{"name": "pods.tokenward.dev", "clientConfig": {}}]
    kind = {"apiVersion": MUTATING_WEBHOOK.api_version, "kind": MUTATING_WEBHOOK.kind}
    site.api.put({**kind, "metadata": {"name": "tokenward"}, "webhooks": webhooks})
    async with running(site):
        await site.until(lambda: has(site, INTERNAL)() and has(site, SERVING)())
        assert site.api.found(CERTIFICATE, SERVING)["spec"]["dnsNames"] == [
            "tokenward-webhook.tokenward-system.svc",
            "tokenward-webhook.tokenward-system.svc.cluster.local",
        ]
        cert_manager.issue(INTERNAL)
        await site.until(lambda: auth_reason(site) == "WaitingForIssuer")
        cert_manager.issue(SERVING)
        await site.until(lambda: auth_reason(site) == "Issued")
        await site.until(lambda: condition(site.auth_status(), "Ready")[0] == "True")
        bundle = rotation.encoded({"x": by.certificate_pem})["x"]
        await site.until(lambda: _ca_bundle(site) == bundle)
        files = site.api.found(CONFIG_MAP, Key(SYSTEM, "tokenward-webhook"))["data"]
        assert files["ca.crt"] == by.certificate_pem.decode()
        assert "caFile: /etc/tokenward/ca.crt" in files["webhook.yaml"]
        cert_manager.issue(INTERNAL, names=[x509.DNSName("other.tokenward-system.svc")])
        await site.until(lambda: auth_reason(site) == "CertificateUnfit")


def _ca_bundle(site: Site) -> str:
    (webhook,) = site.api.found(MUTATING_WEBHOOK, Key("", "tokenward"))["webhooks"]
    return str(webhook["clientConfig"].get("caBundle"))
