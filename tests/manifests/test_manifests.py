"""What `kubectl apply -k` puts into a cluster."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from tests.manifests.conftest import Rendered
from tests.manifests.objects import find
from tests.manifests.policies import Request
from tests.manifests.rendering import RENDERED, VERSIONS, faults
from tests.webhook.pods import CA, pod
from webhook.annotations import PUBLIC, WRITTEN_BY_US
from webhook.decision import SYSTEM_NAMESPACES
from webhook.listener import PATHS
from webhook.settings import check

INSTALLED = [name for name in RENDERED if name != "example"]


def _pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from (o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment")


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize("name", RENDERED)
def test_every_object_passes_its_schema(rendered: Rendered, name: str, version: str) -> None:
    assert [fault for one in rendered[name] for fault in faults(one, version)] == []


def _webhooks(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = find(objects, "MutatingWebhookConfiguration", "tokenward")
    return {webhook["name"]: webhook for webhook in found["webhooks"]}


def test_both_webhooks_are_configured_to_fail_safe_and_fast(rendered: Rendered) -> None:
    webhooks = _webhooks(rendered["base"])
    assert set(webhooks) == {"pods.tokenward.dev", "namespaces.tokenward.dev"}
    for webhook in webhooks.values():
        assert webhook["failurePolicy"] == "Fail"
        assert webhook["timeoutSeconds"] == 5
        assert webhook["sideEffects"] == "None"
        assert webhook["reinvocationPolicy"] == "IfNeeded"
        assert webhook["matchPolicy"] == "Equivalent"
        assert webhook["admissionReviewVersions"] == ["v1"]
        (rule,) = webhook["rules"]
        assert rule == {
            "operations": ["CREATE"],
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }


def test_each_webhook_calls_the_path_that_knows_whether_the_namespace_opted_in(
    rendered: Rendered,
) -> None:
    webhooks = _webhooks(rendered["base"])
    for name, opted_in in (("pods.tokenward.dev", False), ("namespaces.tokenward.dev", True)):
        service = webhooks[name]["clientConfig"]["service"]
        assert PATHS[service["path"]] is opted_in
        found = find(rendered["base"], "Service", service["name"])
        assert [port["port"] for port in found["spec"]["ports"]] == [service["port"]]


def test_system_namespaces_and_our_own_never_match(rendered: Rendered) -> None:
    ours = {*SYSTEM_NAMESPACES, "tokenward-system", "cert-manager"}
    selectors = [w["namespaceSelector"] for w in _webhooks(rendered["base"]).values()]
    for policy in ("tokenward-guard", "tokenward-guard-configuration", "tokenward-guard-updates"):
        found = find(rendered["base"], "ValidatingAdmissionPolicy", policy)
        selectors.append(found["spec"]["matchConstraints"]["namespaceSelector"])
    for selector in selectors:
        first = selector["matchExpressions"][0]
        assert (first["key"], first["operator"]) == ("kubernetes.io/metadata.name", "NotIn")
        assert set(first["values"]) == ours


def test_only_namespaces_that_opted_in_reach_the_second_webhook(rendered: Rendered) -> None:
    selector = _webhooks(rendered["base"])["namespaces.tokenward.dev"]["namespaceSelector"]
    assert selector["matchExpressions"][1] == {
        "key": "tokenward.dev/inject",
        "operator": "In",
        "values": ["enabled"],
    }


def _matched(rendered: Rendered, webhook: str, made: dict[str, Any]) -> bool:
    conditions = _webhooks(rendered["base"])[webhook]["matchConditions"]
    return all(Request(made).holds(condition["expression"]) for condition in conditions)


def _saying(word: str | None, **more: str) -> dict[str, Any]:
    made = pod()
    made["metadata"]["annotations"] = dict(more)
    if word is not None:
        made["metadata"]["annotations"]["tokenward.dev/inject"] = word
    return made


@pytest.mark.parametrize(
    ("word", "first", "second"),
    [
        ("true", True, False),
        ("yes", True, False),
        ("", True, False),
        ("false", False, False),
        (None, False, True),
    ],
)
def test_a_pod_matches_by_what_it_says(
    rendered: Rendered, word: str | None, first: bool, second: bool
) -> None:
    assert _matched(rendered, "pods.tokenward.dev", _saying(word)) is first
    assert _matched(rendered, "namespaces.tokenward.dev", _saying(word)) is second


def test_a_pod_without_annotations_raises_no_error_in_any_condition(rendered: Rendered) -> None:
    bare = {"metadata": {"name": "x"}, "spec": {"containers": []}}
    assert not _matched(rendered, "pods.tokenward.dev", bare)
    assert _matched(rendered, "namespaces.tokenward.dev", bare)


def test_a_mirror_pod_never_matches(rendered: Rendered) -> None:
    for word in ("true", None):
        mirror = _saying(word, **{"kubernetes.io/config.mirror": "x"})
        assert not _matched(rendered, "pods.tokenward.dev", mirror)
        assert not _matched(rendered, "namespaces.tokenward.dev", mirror)


@pytest.mark.parametrize("name", ["base", "overlays/production"])
def test_the_ca_bundle_is_absent_where_somebody_else_writes_it(
    rendered: Rendered, name: str
) -> None:
    for webhook in _webhooks(rendered[name]).values():
        assert "caBundle" not in webhook["clientConfig"]


def test_cert_manager_is_told_whose_ca_to_write(rendered: Rendered) -> None:
    found = find(rendered["overlays/production"], "MutatingWebhookConfiguration", "tokenward")
    source = found["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    namespace, name = source.split("/")
    certificate = find(rendered["overlays/production"], "Certificate", name)
    assert certificate["metadata"]["namespace"] == namespace
    service = _webhooks(rendered["base"])["pods.tokenward.dev"]["clientConfig"]["service"]
    assert f"{service['name']}.{service['namespace']}.svc" in certificate["spec"]["dnsNames"]


def test_self_managed_certificates_fit_the_services_and_the_bundle(rendered: Rendered) -> None:
    objects = rendered["overlays/self-managed"]
    for name, host in (
        ("tokenward-webhook-serving", "tokenward-webhook"),
        ("tokenward-authserver-internal", "tokenward-authserver-internal"),
    ):
        data = find(objects, "Secret", name)["data"]
        leaf = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
        authority = x509.load_pem_x509_certificate(base64.b64decode(data["ca.crt"]))
        leaf.verify_directly_issued_by(authority)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert f"{host}.tokenward-system.svc" in names.get_values_for_type(x509.DNSName)
        assert "ca.key" not in data
    for webhook in _webhooks(objects).values():
        assert base64.b64decode(webhook["clientConfig"]["caBundle"]) == base64.b64decode(
            find(objects, "Secret", "tokenward-webhook-serving")["data"]["ca.crt"]
        )


@pytest.mark.parametrize("name", INSTALLED)
def test_no_process_of_ours_may_ask_the_api_server_for_anything(
    rendered: Rendered, name: str
) -> None:
    ours = {o["metadata"]["name"] for o in rendered[name] if o["kind"] == "ServiceAccount"}
    for one in rendered[name]:
        if one["kind"].endswith("RoleBinding"):
            assert not {subject["name"] for subject in one["subjects"]} & ours
        if one["kind"] == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False
    for spec in _pods(rendered[name]):
        assert spec["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"] in ours


def test_the_base_holds_no_rbac_and_no_secret(rendered: Rendered) -> None:
    kinds = {one["kind"] for one in rendered["base"]}
    assert not {kind for kind in kinds if "Role" in kind}
    assert "Secret" not in kinds


@pytest.mark.parametrize("name", RENDERED)
def test_every_pod_is_restricted(rendered: Rendered, name: str) -> None:
    for spec in _pods(rendered[name]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
    for namespace in (o for o in rendered[name] if o["kind"] == "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", INSTALLED)
def test_our_own_containers_have_a_read_only_root(rendered: Rendered, name: str) -> None:
    for spec in _pods(rendered[name]):
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_webhook_survives_a_node_a_zone_and_a_rollout(rendered: Rendered) -> None:
    deployment = find(rendered["base"], "Deployment", "tokenward-webhook")["spec"]
    spec = deployment["template"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    keys = [constraint["topologyKey"] for constraint in spec["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    find(rendered["base"], "PriorityClass", spec["priorityClassName"])
    disruption = find(rendered["base"], "PodDisruptionBudget", "tokenward-webhook")["spec"]
    assert disruption["minAvailable"] == 1
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (disruption["selector"], deployment["selector"]):
        assert selector["matchLabels"]
        assert selector["matchLabels"].items() <= labels.items()
    # The process lingers and drains before it is killed.
    assert spec["terminationGracePeriodSeconds"] > 10 + 15


def test_the_webhook_listens_where_private_clusters_let_the_control_plane_in(
    rendered: Rendered,
) -> None:
    (container,) = find(rendered["base"], "Deployment", "tokenward-webhook")["spec"]["template"][
        "spec"
    ]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"https": 10250, "ops": 9090}


@pytest.mark.parametrize("name", INSTALLED)
def test_the_configuration_shipped_is_one_the_webhook_takes(rendered: Rendered, name: str) -> None:
    text = find(rendered[name], "ConfigMap", "tokenward-webhook")["data"]["webhook.yaml"]
    raw = yaml.safe_load(text)
    mounted = raw["authserver"]["caFile"]
    assert mounted.startswith("/var/run/tokenward/serving/")
    raw["authserver"]["caFile"] = CA
    found = check(raw, Path())
    ports = [found.listeners.webhook.port, found.listeners.ops.port]
    assert ports == [10250, 9090]
    services = {o["metadata"]["name"]: o for o in rendered[name] if o["kind"] == "Service"}
    host = found.authserver.url.removeprefix("https://").partition(":")[0]
    assert host.split(".")[0] in services


def _policy(objects: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = find(objects, "NetworkPolicy", name)["spec"]
    return found


def test_the_network_is_closed_but_for_what_is_needed(rendered: Rendered) -> None:
    objects = rendered["base"]
    default = _policy(objects, "tokenward-default-deny")
    assert default == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    webhook = _policy(objects, "tokenward-webhook")
    assert webhook["ingress"] == [{"ports": [{"protocol": "TCP", "port": 10250}]}]
    assert "Egress" in webhook["policyTypes"]
    assert "egress" not in webhook


def test_only_injected_pods_reach_the_internal_listener(rendered: Rendered) -> None:
    for name in INSTALLED:
        internal = [
            rule
            for one in rendered[name]
            if one["kind"] == "NetworkPolicy"
            for rule in one["spec"].get("ingress", [])
            if any(port["port"] == 8443 for port in rule["ports"])
        ]
        (rule,) = internal
        assert rule["from"] == [
            {
                "namespaceSelector": {},
                "podSelector": {"matchLabels": {"tokenward.dev/injected": "true"}},
            }
        ]


@pytest.mark.parametrize("name", INSTALLED)
def test_each_service_selects_a_workload_of_ours(rendered: Rendered, name: str) -> None:
    labels = [
        o["spec"]["template"]["metadata"]["labels"]
        for o in rendered[name]
        if o["kind"] == "Deployment"
    ]
    for one in (o for o in rendered[name] if o["kind"] == "Service"):
        wanted = one["spec"]["selector"].items()
        assert wanted
        assert any(wanted <= found.items() for found in labels), one["metadata"]["name"]


@pytest.mark.parametrize("name", INSTALLED)
def test_each_network_policy_selects_a_workload_of_ours(rendered: Rendered, name: str) -> None:
    labels = [
        o["spec"]["template"]["metadata"]["labels"]
        for o in rendered[name]
        if o["kind"] == "Deployment"
    ]
    for one in (o for o in rendered[name] if o["kind"] == "NetworkPolicy"):
        wanted = one["spec"]["podSelector"].get("matchLabels", {}).items()
        assert any(wanted <= found.items() for found in labels), one["metadata"]["name"]


def test_the_public_and_the_internal_service_are_apart(rendered: Rendered) -> None:
    for name in INSTALLED:
        public = find(rendered[name], "Service", "tokenward-authserver")["spec"]["ports"]
        internal = find(rendered[name], "Service", "tokenward-authserver-internal")["spec"]
        assert [port["targetPort"] for port in public] == ["public"]
        assert "public" not in [port["targetPort"] for port in internal["ports"]]


def test_sqlite_has_one_replica_and_more_replicas_have_no_sqlite(rendered: Rendered) -> None:
    base = find(rendered["base"], "Deployment", "tokenward-authserver")["spec"]
    assert (base["replicas"], base["strategy"]) == (1, {"type": "Recreate"})
    many = find(rendered["overlays/production"], "Deployment", "tokenward-authserver")["spec"]
    assert many["replicas"] > 1
    assert many["strategy"]["type"] == "RollingUpdate"
    volumes = {volume["name"]: volume for volume in many["template"]["spec"]["volumes"]}
    assert "database" not in volumes
    assert volumes["config"]["configMap"] == {"name": "tokenward-authserver"}
    kinds = [one["kind"] for one in rendered["overlays/production"]]
    assert "PersistentVolumeClaim" not in kinds


@pytest.mark.parametrize("name", ["overlays/production", "overlays/example"])
def test_production_images_are_pinned_by_digest(rendered: Rendered, name: str) -> None:
    for spec in _pods(rendered[name]):
        for container in spec["containers"]:
            assert "@sha256:" in container["image"]


def test_workloads_are_approved_for_names_of_their_own_namespace_only(rendered: Rendered) -> None:
    policy = find(
        rendered["overlays/production"], "CertificateRequestPolicy", "tokenward-workloads"
    )
    allowed = policy["spec"]["allowed"]
    assert (allowed["isCA"], allowed["usages"]) == (False, ["digital signature", "client auth"])
    (validation,) = allowed["uris"]["validations"]
    assert "cr.namespace" in validation["rule"]
    assert "dnsNames" not in allowed


def test_the_guard_matches_creations_and_ephemeral_containers_only(rendered: Rendered) -> None:
    found = find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-guard")["spec"]
    rules = found["matchConstraints"]["resourceRules"]
    assert [(rule["operations"], rule["resources"]) for rule in rules] == [
        (["CREATE"], ["pods"]),
        (["UPDATE"], ["pods/ephemeralcontainers"]),
    ]
    assert found["failurePolicy"] == "Fail"
    assert "paramKind" not in found


def test_every_rule_states_its_scope_so_that_applying_again_changes_nothing(
    rendered: Rendered,
) -> None:
    """The API server would add it, and `kubectl apply` sees a list as changed as a whole."""
    rules = [rule for webhook in _webhooks(rendered["base"]).values() for rule in webhook["rules"]]
    for one in rendered["base"]:
        if one["kind"] == "ValidatingAdmissionPolicy":
            rules += one["spec"]["matchConstraints"]["resourceRules"]
    assert {rule.get("scope") for rule in rules} == {"Namespaced"}


def test_the_guards_second_half_never_denies_for_want_of_its_parameter(rendered: Rendered) -> None:
    binding = find(
        rendered["base"], "ValidatingAdmissionPolicyBinding", "tokenward-guard-configuration"
    )
    reference = binding["spec"]["paramRef"]
    assert reference["parameterNotFoundAction"] == "Allow"
    find(rendered["base"], "ConfigMap", reference["name"])


def _workload(annotations: dict[str, str], **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": []} | spec}
    return {"kind": "Deployment", "metadata": {}, "spec": {"template": template}}


def _warned(rendered: Rendered, workload: dict[str, Any]) -> list[str]:
    policy = find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-warnings")
    return Request(workload).refusals(policy)


def test_the_warnings_deny_nothing(rendered: Rendered) -> None:
    binding = find(rendered["base"], "ValidatingAdmissionPolicyBinding", "tokenward-warnings")
    assert binding["spec"]["validationActions"] == ["Warn", "Audit"]
    policy = find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-warnings")
    assert policy["spec"]["failurePolicy"] == "Ignore"


@pytest.mark.parametrize(
    ("annotations", "spec"),
    [
        ({"tokenward.dev/inject": "yes"}, {}),
        ({"tokenward.dev/inject": "true", "tokenward.dev/prot": "1"}, {}),
        ({"tokenward.dev/injekt": "true"}, {}),
        ({"tokenward.dev/server": "github"}, {}),
        ({"tokenward.dev/inject": "true", "tokenward.dev/port": "80"}, {}),
        ({"tokenward.dev/inject": "true", "tokenward.dev/server": "A/b"}, {}),
        ({"tokenward.dev/inject": "true", "tokenward.dev/log-level": "loud"}, {}),
        ({"tokenward.dev/inject": "true", "tokenward.dev/init-order": "middle"}, {}),
        ({"tokenward.dev/inject": "true", "tokenward.dev/cpu-limit": "lots"}, {}),
        ({"tokenward.dev/inject": "true"}, {"hostNetwork": True}),
    ],
)
def test_whoever_applies_a_workload_is_warned_there_and_then(
    rendered: Rendered, annotations: dict[str, str], spec: dict[str, Any]
) -> None:
    warned = _warned(rendered, _workload(annotations, **spec))
    assert warned
    assert not any(text.startswith("error") for text in warned)


@pytest.mark.parametrize("field", ["annotations", "labels"])
def test_an_opt_in_in_the_wrong_place_is_warned_about(rendered: Rendered, field: str) -> None:
    opt_in = {"tokenward.dev/inject": "true"}
    misplaced = _workload({}) | {"metadata": {field: opt_in}}
    (warned,) = _warned(rendered, misplaced)
    assert "belongs in the annotations of the pod template" in warned
    assert _warned(rendered, _workload(opt_in) | {"metadata": {field: opt_in}}) == []
    labelled = _workload({})
    labelled["spec"]["template"]["metadata"]["labels"] = opt_in
    assert len(_warned(rendered, labelled)) == 1


def test_proper_workloads_and_strangers_are_not_warned(rendered: Rendered) -> None:
    good = {
        "tokenward.dev/inject": "true",
        "tokenward.dev/server": "github",
        "tokenward.dev/port": "16000",
        "tokenward.dev/log-level": "debug",
        "tokenward.dev/init-order": "last",
        "tokenward.dev/cpu-limit": "0.5",
        "tokenward.dev/memory-limit": "96Mi",
    }
    assert _warned(rendered, _workload(good)) == []
    assert _warned(rendered, _workload({}, hostNetwork=True)) == []
    assert (
        _warned(rendered, {"metadata": {}, "spec": {"template": {"spec": {"containers": []}}}})
        == []
    )
    cron = {"metadata": {}, "spec": {"jobTemplate": {"spec": _workload(good)["spec"]}}}
    assert _warned(rendered, cron) == []
    (deployment,) = (o for o in rendered["example"] if o["kind"] == "Deployment")
    assert _warned(rendered, deployment) == []


def test_the_warnings_know_every_public_key(rendered: Rendered) -> None:
    policy = find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-warnings")
    listed = policy["spec"]["validations"][0]["expression"]
    for key in (*PUBLIC, *WRITTEN_BY_US):
        assert f"'{key}'" in listed
    assert listed.count("'tokenward.dev/") == len(PUBLIC) + len(WRITTEN_BY_US)


def test_the_examples_secret_is_the_one_the_webhook_mounts(rendered: Rendered) -> None:
    (certificate,) = (o for o in rendered["example"] if o["kind"] == "Certificate")
    assert certificate["spec"]["secretName"] == "github-mcp-tokenward"
    assert certificate["spec"]["uris"] == [
        "spiffe://cluster.local/ns/mcp-servers/mcpserver/github-mcp"
    ]
