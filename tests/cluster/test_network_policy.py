"""The NetworkPolicy of a server at a real API server, with the rights of `manifests/tenant`.

Which networks enforce it is not tested here: there are no nodes.
"""

import json
from pathlib import Path
from typing import Any

from tests.cluster.audit_log import log_file, requests_of
from tests.cluster.cluster import Object, eventually
from tests.cluster.controller import (
    Site,
    auth_server,
    controller,
    fitted,
    kubeconfig_of,
    server_auth,
)
from tests.cluster.pods import named
from tests.support.controller_rights import NETWORK_POLICY_ROLE, granted
from tests.webhook.pods import injected

_BINDING = "tenant/network-policy/role-binding.yaml"
_POLICY = "notes-tokenward"


def test_the_policy_is_there_once_the_namespace_is_prepared_and_goes_with_the_wish(
    site: Site, tmp_path: Path
) -> None:
    site.system.inside("create", "-f", "-", given=auth_server([site.tenant.namespace]))
    site.tenant.inside("create", "-f", "-", given=_server(site, 8080, 15501))
    log = log_file()
    with controller(kubeconfig_of(site.system, tmp_path), site.system, tmp_path):
        _expect(site, ("False", "NamespaceNotPrepared"))
        for one in fitted(_BINDING, site.system.namespace, site.tenant.suffix):
            site.tenant.inside("apply", "-f", "-", given=one)
        # It looks again once a minute; a change of the object is looked at at once.
        site.tenant.inside("annotate", "msa", "notes", "example.com/touched=yes")
        _expect(site, ("True", "AppPortClosed"))
        assert _opened(site) == [8080, 15501]
        _a_pod_that_the_policy_misses_is_named(site)
        _what_is_changed_by_hand_is_put_back(site)
        gone = [{"op": "remove", "path": "/spec/networkPolicy"}]
        site.tenant.inside("patch", "msa", "notes", "--type=json", "-p", json.dumps(gone))
        eventually(lambda: site.tenant.get("networkpolicy", _POLICY), lambda found: not found)
        eventually(lambda: site.condition("NetworkPolicyReady"), lambda c: c == ("", ""))
    if log is not None:
        account = f"{site.system.namespace}/tokenward-controller"
        asked = [
            one
            for one in requests_of(log, account)
            if one.resource == "networkpolicies" and one.namespace == site.tenant.namespace
        ]
        denied = {one.verb for one in asked if one.code == 403}
        assert denied <= {"get", "list"}  # before the namespace was prepared
        used = {one.verb for one in asked if one.code < 300}
        assert used <= {right[3] for right in granted([NETWORK_POLICY_ROLE])}


def _server(site: Site, *ports: int) -> Object:
    return server_auth(system=site.system.namespace, networkPolicy={"ports": list(ports)})


def _expect(site: Site, condition: tuple[str, str]) -> None:
    eventually(lambda: site.condition("NetworkPolicyReady"), lambda c: c == condition)


def _opened(site: Site) -> list[int]:
    found: Any = site.tenant.get("networkpolicy", _POLICY)
    rules = found["spec"]["ingress"]
    return [port["port"] for rule in rules for port in rule.get("ports", ())]


def _a_pod_that_the_policy_misses_is_named(site: Site) -> None:
    """The pod is as the webhook makes it; there is no webhook here."""
    asked = {
        "gateway": "8080:8000", "gateway-app-port": "network-policy", "server": "notes",
        "resource": "https://notes.mcp.example.com/mcp",
    }  # fmt: skip
    pod = injected(named("missed", asked))
    pod["metadata"]["labels"]["app.kubernetes.io/name"] = "other"
    site.tenant.create(pod)
    _expect(site, ("False", "AppPortOpen"))
    site.tenant.inside("label", "pod", "missed", "--overwrite", "app.kubernetes.io/name=notes")
    _expect(site, ("True", "AppPortClosed"))


def _what_is_changed_by_hand_is_put_back(site: Site) -> None:
    change = [{"op": "replace", "path": "/spec/ingress", "value": [{}]}]
    site.tenant.inside(
        "patch", "networkpolicy", _POLICY, "--type=json", "-p", json.dumps(change)
    )  # fmt: skip
    eventually(lambda: _opened(site), lambda ports: ports == [8080, 15501])
    site.tenant.inside("delete", "networkpolicy", _POLICY)
    eventually(lambda: site.tenant.get("networkpolicy", _POLICY), bool)
