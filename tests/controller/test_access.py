"""The manifests grant the rights that the controller uses: none is missing, none is over."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from controller.api.kinds import (
    ADMISSION_POLICY,
    JOB,
    MCP_AUTH_SERVER,
    MCP_SERVER_AUTH,
    MUTATING_WEBHOOK,
    POD,
    SECRET,
)
from controller.api.objects import Key
from controller.issuing import authority, rotation
from controller.issuing.authority import new_key
from controller.start_checks import check_schemas
from tests.controller.pod_requests import answer, put_request
from tests.controller.running import MAIN, NOTES, Site, running
from tests.controller.samples import SYSTEM
from tests.support.controller_rights import ACCESS, MANIFESTS, ROLES, Right, granted, normalised


class Recorder:
    """Rights that calls need. An apply of an object that is not there is a patch and a create."""

    def __init__(self, site: Site) -> None:
        self.used: set[Right] = set()
        self._site = site
        site.api.refuse = self._note  # it refuses nothing

    def _note(self, verb: str, kind: Any, key: Key) -> None:
        group = kind.api_version.rpartition("/")[0]
        verbs = {"apply": ["patch"]}.get(verb, [verb])
        if verb == "apply" and (kind, key) not in self._site.api.objects:
            verbs.append("create")
        for one in verbs:
            self.used.add((self._role(kind, key, one), group, kind.plural, one))

    def _role(self, kind: Any, key: Key, verb: str) -> str:
        if kind == SECRET and key.namespace not in (SYSTEM, ""):
            return ROLES[2]
        in_own = key.namespace == SYSTEM and kind not in (MCP_AUTH_SERVER, MCP_SERVER_AUTH)
        return ROLES[0] if in_own else ROLES[1]


async def used() -> set[Right]:
    """Everything that the controller ever does."""
    site = Site()
    recorder = Recorder(site)
    await check_schemas(site.api)  # type: ignore[arg-type]
    site.api.put(
        {
            "apiVersion": MUTATING_WEBHOOK.api_version,
            "kind": MUTATING_WEBHOOK.kind,
            "metadata": {"name": "tokenward"},
            "webhooks": [{"name": "pods.tokenward.dev", "clientConfig": {}}],
        }
    )
    for name in ("tokenward-guard-controller", "tokenward-guard-configuration"):
        site.api.put(
            {
                "apiVersion": ADMISSION_POLICY.api_version,
                "kind": ADMISSION_POLICY.kind,
                "metadata": {"name": name},
            }
        )
    annotations = {
        "tokenward.dev/authserver-ca": "old",
        "tokenward.dev/status": '{"server": "notes"}',
    }
    pod = {"name": "p", "namespace": "mcp-servers", "labels": {"tokenward.dev/injected": "true"}}
    site.api.put(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**pod, "annotations": annotations}}
    )
    site.put_auth_server()
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        await site.until(
            lambda: (
                site.api.found(POD, Key("mcp-servers", "p"))["metadata"]["annotations"][
                    "tokenward.dev/authserver-ca"
                ]
                != "old"
            )
        )
        put_request(site)
        await site.until(lambda: answer(site) is not None)
        # A credential that was edited by hand is put back.
        stored = Key("mcp-servers", "notes-tokenward")
        site.api.put({**site.api.found(SECRET, stored), "data": {}})
        await site.until(lambda: site.api.found(SECRET, stored)["data"] != {})
        # A candidate is checked, and replaced by another one before its check ends.
        run_cluster, site.run_cluster = site.run_cluster, lambda: None  # type: ignore[method-assign]
        site.put_auth_server(configuration={"logLevel": "debug"})
        await site.until(lambda: sum(kind == JOB for kind, _ in site.api.objects) == 1)
        site.put_auth_server(configuration={"logLevel": "error"})
        await site.quiet()
        site.run_cluster = run_cluster  # type: ignore[method-assign]
        # A signing key is old and gets a successor.
        keys = Key(SYSTEM, "main-signing")
        data = rotation.encoded({"signing-20200101000000.pem": authority.key_pem(new_key())})
        site.api.put({**site.api.found(SECRET, keys), "data": data})
        await site.until(lambda: len(site.api.found(SECRET, keys)["data"]) == 2)
        await site.quiet()
    assert (MCP_SERVER_AUTH, NOTES) in site.api.objects
    assert (MCP_AUTH_SERVER, MAIN) in site.api.objects
    return recorder.used


def with_subresources(rights: set[Right]) -> Iterator[Right]:
    """Statuses are a resource of their own."""
    for role, group, resource, verb in rights:
        if group in ("tokenward.dev", "certificates.k8s.io") and verb == "patch":
            resource = f"{resource}/status"
        yield role, group, resource, verb


async def test_every_right_is_used_and_every_call_is_permitted() -> None:
    needed = set(normalised(with_subresources(await used())))
    # A signer's status is taken from who may `sign` for it; no call of that name exists.
    needed.add((ROLES[1], "certificates.k8s.io", "signers", "sign"))
    assert needed - granted() == set()
    assert granted() - needed == set()


def test_no_right_is_a_way_to_more_rights() -> None:
    for one in yaml.safe_load_all(ACCESS.read_text("utf-8")):
        for rule in one.get("rules", ()):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
            assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
            assert "pods/exec" not in rule["resources"]


def test_secrets_elsewhere_are_granted_by_the_operators_binding_only() -> None:
    text = ACCESS.read_text("utf-8")
    (cluster,) = re.findall(
        r"kind: ClusterRole\nmetadata: \{name: tokenward-controller\}.*?---", text, re.S
    )
    assert "secrets" not in cluster
    binding = yaml.safe_load((MANIFESTS / "tenant/role-binding.yaml").read_text())
    assert binding["kind"] == "RoleBinding"
    assert binding["roleRef"]["name"] == "tokenward-tenant"
