"""What is wrong with the objects of a cluster, and the remedy of each. No kubectl inside."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cryptography import x509

from authserver.admin.doctor.finding import Finding
from tokenward.cluster.kubectl import Object
from tokenward.cluster.seen import GROUP, RESOURCES, Seen
from tokenward.explain.meanings import remedy_of_condition

SIDECAR: Final = "tokenward-sidecar"
GUARD: Final = ("tokenward-guard", "tokenward-guard-configuration", "tokenward-guard-updates")

# How an API server begins the sentence in which it could not ask a webhook.
_CALL_FAILED: Final = "failed calling webhook"
_INSTALL: Final = "apply the manifests; see docs/how-to/install.md"
# With these a namespace is prepared. The status names the one that is missing.
_TENANT_RIGHTS: Final = "manifests/tenant"
_FURTHER_RIGHTS: Final = (f"{_TENANT_RIGHTS}/cert-manager", f"{_TENANT_RIGHTS}/network-policy")


def findings(seen: Seen, now: float) -> Iterator[Finding]:
    """`now` is Unix time."""
    for kind in seen.unread:
        yield Finding(
            "cluster_not_readable", kind, "this account may not list them",
            f"let somebody run this who may list {kind}",
        )  # fmt: skip
    yield from _definitions(seen)
    yield from _webhook(seen, now)
    if "validatingadmissionpolicies" not in seen.unread:
        yield from _guard(seen)
    for deployment in seen.deployments:
        yield from _deployment(deployment)
    for kind, objects in (
        ("MCPAuthServer", seen.auth_servers),
        ("MCPServerAuth", seen.server_auths),
    ):
        for one in objects:
            yield from _not_ready(kind, one)
    for pod in seen.pods:
        yield from _pod(pod)


def _definitions(seen: Seen) -> Iterator[Finding]:
    """Without any, the cluster is run without the controller: nothing is missing."""
    names = {one["metadata"]["name"]: one for one in seen.definitions}
    for name in (f"{plural}.{GROUP}" for plural in RESOURCES):
        if names and name not in names:
            yield Finding(
                "definition_missing", name, "the other CustomResourceDefinition is there, not this",
                "kubectl apply --server-side -k manifests/crds",
            )  # fmt: skip
    for name, one in names.items():
        if not _condition(one, "Established", "True"):
            yield Finding(
                "definition_not_established", name, "the API server does not serve it",
                f"kubectl describe crd {name}",
            )  # fmt: skip


def _webhook(seen: Seen, now: float) -> Iterator[Finding]:
    if not seen.webhooks and "mutatingwebhookconfigurations" not in seen.unread:
        yield Finding(
            "webhook_not_installed", "MutatingWebhookConfiguration/tokenward",
            "no pod gets a sidecar", _INSTALL,
        )  # fmt: skip
    for configuration in seen.webhooks:
        for hook in configuration.get("webhooks", ()):
            yield from _hook(f"MutatingWebhookConfiguration/{hook['name']}", hook, now)
    refusal = seen.admission_refusal or ""
    if _CALL_FAILED in refusal:
        yield Finding(
            "webhook_unreachable", "MutatingWebhookConfiguration/tokenward", refusal,
            "look at the webhook's pods, at the NetworkPolicies between API server and webhook, and"
            " at caBundle; pods that opted in cannot start until it answers",
        )  # fmt: skip


def _hook(place: str, hook: Object, now: float) -> Iterator[Finding]:
    if hook.get("failurePolicy", "Fail") != "Fail":
        yield Finding(
            "webhook_fails_open", place, "a pod that opted in starts without its sidecar while the"
            " webhook is away", "set failurePolicy: Fail",
        )  # fmt: skip
    bundle = hook.get("clientConfig", {}).get("caBundle")
    if not bundle:
        yield Finding(
            "webhook_without_ca", place, "caBundle is empty, so the API server trusts no webhook",
            "look at the log of whatever writes it: the controller, or cert-manager's cainjector",
        )  # fmt: skip
    elif not _holds_a_valid_certificate(bundle, now):
        yield Finding(
            "webhook_ca_over", place, "caBundle holds no certificate that is valid now",
            "look at the log of whatever writes it: the controller, or cert-manager's cainjector",
        )  # fmt: skip


def _holds_a_valid_certificate(bundle: str, now: float) -> bool:
    try:
        certificates = x509.load_pem_x509_certificates(base64.b64decode(bundle, validate=True))
    except (ValueError, binascii.Error):
        return False
    return any(
        one.not_valid_before_utc.timestamp() <= now < one.not_valid_after_utc.timestamp()
        for one in certificates
    )


def _guard(seen: Seen) -> Iterator[Finding]:
    names = {one["metadata"]["name"] for one in seen.policies}
    for name in GUARD:
        if name not in names:
            yield Finding(
                "guard_not_installed", f"ValidatingAdmissionPolicy/{name}",
                "nothing refuses a pod that goes around the webhook", _INSTALL,
            )  # fmt: skip
        elif not any(_denies(one, name) for one in seen.bindings):
            yield Finding(
                "guard_not_bound", f"ValidatingAdmissionPolicyBinding/{name}",
                "no binding makes the policy refuse anything", _INSTALL,
            )  # fmt: skip
    for policy in seen.policies:
        checked = policy.get("status", {}).get("typeChecking", {})
        for warning in checked.get("expressionWarnings", ()):
            yield Finding(
                "guard_does_not_compile", f"ValidatingAdmissionPolicy/{policy['metadata']['name']}",
                f"{warning['fieldRef']}: {' '.join(warning['warning'].split())}",
                "install the policies of this version; Kubernetes must be 1.32 or later",
            )  # fmt: skip


def _denies(binding: Object, policy: str) -> bool:
    spec = binding.get("spec", {})
    return spec.get("policyName") == policy and "Deny" in spec.get("validationActions", ())


def _deployment(deployment: Object) -> Iterator[Finding]:
    name = deployment["metadata"]["name"]
    if name.startswith("tokenward-") and not deployment.get("status", {}).get("availableReplicas"):
        where = deployment["metadata"]["namespace"]
        yield Finding(
            "deployment_not_available", f"Deployment/{where}/{name}", "no pod of it is available",
            f"kubectl -n {where} describe deployment {name}, and look at the log of its pods",
        )  # fmt: skip


def _not_ready(kind: str, one: Object) -> Iterator[Finding]:
    namespace, name = one["metadata"]["namespace"], one["metadata"]["name"]
    if _condition(one, "Ready", "True"):
        return
    ready = _condition(one, "Ready")
    place = f"{kind}/{namespace}/{name}"
    if ready is None:
        yield Finding(
            "object_without_status", place, "no controller has looked at it",
            "look whether the controller runs and leads; see docs/how-to/run-the-controller.md",
        )  # fmt: skip
    elif ready["reason"] == "NamespaceNotPrepared":
        named = (one for one in _FURTHER_RIGHTS if one in ready["message"])
        folder = next(named, _TENANT_RIGHTS)
        yield Finding(
            "namespace_not_prepared", place, ready["message"],
            f"kubectl -n {namespace} apply -k {folder}",
        )  # fmt: skip
    else:
        yield Finding(
            "object_not_ready", place, f"{ready['reason']}: {ready['message']}",
            remedy_of_condition(ready["reason"]) or "see docs/reference/conditions.md",
        )  # fmt: skip


def _pod(pod: Object) -> Iterator[Finding]:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    place = f"Pod/{namespace}/{name}"
    phase = pod.get("status", {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        return
    spec = pod["spec"]
    if SIDECAR not in {one["name"] for one in spec.get("initContainers") or ()}:
        yield Finding(
            "pod_without_sidecar", place,
            "it asks for a sidecar and has none: it was made while no webhook was installed",
            "delete it, so that it is made anew",
        )  # fmt: skip
        return
    states = pod.get("status", {}).get("initContainerStatuses", ())
    for state in (one for one in states if one["name"] == SIDECAR and not one.get("ready")):
        yield Finding(
            "sidecar_not_ready", place, _why_not_ready(state),
            f"kubectl -n {namespace} logs {name} -c {SIDECAR}",
        )  # fmt: skip


def _why_not_ready(state: Object) -> str:
    waiting = state.get("state", {}).get("waiting") or {}
    ended = (state.get("lastState", {}).get("terminated")) or {}
    words = [f"the sidecar is not ready; {state.get('restartCount', 0)} restarts"]
    if waiting.get("reason"):
        words.append(waiting["reason"])
    if ended:
        words.append(f"ended with exit code {ended.get('exitCode')}")
    return "; ".join(words)


def _condition(one: Object, kind: str, status: str | None = None) -> dict[str, Any] | None:
    conditions: Iterable[dict[str, Any]] = one.get("status", {}).get("conditions", ())
    for condition in conditions:
        if condition["type"] == kind and status in (None, condition["status"]):
            return condition
    return None
