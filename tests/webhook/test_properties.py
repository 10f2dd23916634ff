"""For any pod: nothing is lost, only `add` happens, once is enough, and Kubernetes takes it."""

import contextlib
import copy
import json
from functools import _lru_cache_wrapper
from itertools import product
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.webhook.pods import SIDECAR, injected, pod, recorded_pod, settings, sidecar_of, verdict
from webhook import inject_command, options, patch, pod_view, sidecar_spec
from webhook.evaluate import evaluate
from webhook.manifest_stream import documents
from webhook.pod_templates import items
from webhook.reasons import Reason

_SUPPORTED = [
    version
    for version in kubernetes_validate.utils.all_versions()
    if tuple(map(int, version.split(".")[:2])) >= (1, 32)
]

# How long one example takes says something of the machine's load only.
_patient = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
# Fields no Kubernetes has: the prefix keeps them from meeting a real one.
_extra = st.dictionaries(st.text("abcXYZ/~\"' é", max_size=8).map("zz{}".format), _json, max_size=3)
_names = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_env = st.none() | st.lists(
    st.builds(
        lambda name, value: {"name": name, "value": value}, st.text("AB_$()", min_size=1), st.text()
    ),
    max_size=3,
)
_keys = st.from_regex(r"[a-z]{1,8}(/[a-z~]{1,8})?", fullmatch=True)


@st.composite
def _containers(draw: st.DrawFn, least: int, prefix: str) -> list[dict[str, Any]]:
    names = draw(st.lists(_names, min_size=least, max_size=3, unique=True))
    made = []
    for name in names:
        container = {"name": f"{prefix}{name}", "image": "x"} | draw(_extra)
        if draw(st.booleans()):
            container["env"] = draw(_env)
        if draw(st.booleans()):
            container["resources"] = draw(st.sampled_from([None, {}, {"limits": {"cpu": "1"}}]))
        made.append(container)
    return made


@st.composite
def _pods(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": draw(_containers(1, "a"))} | draw(_extra)
    if draw(st.booleans()):
        spec["initContainers"] = draw(st.none() | _containers(0, "i"))
    if draw(st.booleans()):
        spec["volumes"] = draw(st.none() | st.just([]) | st.just([{"name": "v", "emptyDir": {}}]))
    metadata: dict[str, Any] = {"name": draw(_names)} | draw(_extra)
    metadata["annotations"] = {"tokenward.dev/inject": "true"} | draw(
        st.dictionaries(_keys, st.text(), max_size=3)
    )
    if draw(st.booleans()):
        metadata["annotations"]["tokenward.dev/init-order"] = "last"
    if draw(st.booleans()):
        metadata["labels"] = draw(st.none() | st.dictionaries(_keys, st.text(), max_size=2))
    return {"metadata": metadata, "spec": spec} | draw(_extra)


def _without_ours(found: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The injected pod minus everything that injecting may add."""
    rest = copy.deepcopy(found)
    spec, metadata = rest["spec"], rest["metadata"]
    for field in ("initContainers", "volumes"):
        if spec.get(field) is not None:
            spec[field] = [e for e in spec[field] if not e["name"].startswith("tokenward-")]
            if not spec[field] and not before["spec"].get(field):
                _restore(spec, before["spec"], field)
    for field in ("annotations", "labels"):
        ours = ("tokenward.dev/status", "tokenward.dev/authserver-ca", "tokenward.dev/injected")
        metadata[field] = {k: v for k, v in metadata[field].items() if k not in ours}
        if not metadata[field] and not before["metadata"].get(field):
            _restore(metadata, before["metadata"], field)
    for field in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(field) or ()):
            env = [e for e in container["env"] if e["name"] != "TOKENWARD_URL"]
            container["env"] = env
            if not env and not before["spec"][field][at].get("env"):
                _restore(container, before["spec"][field][at], "env")
    return rest


def _restore(changed: dict[str, Any], before: dict[str, Any], field: str) -> None:
    del changed[field]
    if field in before:
        changed[field] = before[field]


@_patient
@given(_pods())
def test_nothing_of_the_pod_is_lost_or_changed(made: dict[str, Any]) -> None:
    before = copy.deepcopy(made)
    found = injected(made)
    assert made == before
    assert _without_ours(found, before) == before


@_patient
@given(_pods())
def test_every_operation_is_an_add(made: dict[str, Any]) -> None:
    assert {operation["op"] for operation in verdict(made).operations} == {"add"}


@_patient
@given(_pods())
def test_a_second_application_is_empty(made: dict[str, Any]) -> None:
    told = verdict(injected(made))
    assert (told.reason, told.operations) == (Reason.ALREADY_INJECTED, ())


@_patient
@given(_pods())
def test_there_is_exactly_one_sidecar(made: dict[str, Any]) -> None:
    found = injected(made)["spec"]["initContainers"]
    assert [container["name"] for container in found].count(SIDECAR) == 1


def _forget() -> None:
    for module in (options, patch, sidecar_spec):
        for remembering in vars(module).values():
            if isinstance(remembering, _lru_cache_wrapper):
                remembering.cache_clear()


_UNDER = (settings(), settings(issuer="https://other.example.com", trustDomain="example.net"))


@_patient
@given(st.lists(_pods(), min_size=2, max_size=4), st.sampled_from(["github", "slack"]))
def test_what_was_decided_before_changes_no_answer(made: list[dict[str, Any]], name: str) -> None:
    made[0]["metadata"]["labels"] = {"app.kubernetes.io/name": name}
    made.append(made[0] | {"metadata": made[0]["metadata"] | {"labels": None}})
    cases = list(product(made, ("mcp-servers", "others"), _UNDER))
    alone = []
    for found, namespace, under in cases:
        _forget()
        alone.append(evaluate(pod_view.read(found), namespace, under, namespace_opted_in=False))
    for _ in range(2):
        for (found, namespace, under), expected in zip(cases, alone, strict=True):
            told = evaluate(pod_view.read(found), namespace, under, namespace_opted_in=False)
            assert told == expected
            assert not told.patch or f"//{under.trust_domain}/ns/{namespace}/" in str(told.patch)


def test_annotations_too_long_to_be_remembered_are_read_all_the_same() -> None:
    under, names = settings(), ",".join(f"app-{at}" for at in range(1000))
    before = options._remembered.cache_info().currsize
    for _ in range(2):
        told = verdict(pod({"skip-containers": names}), under)
        assert told.reason is Reason.NO_SUCH_CONTAINER
    assert options._remembered.cache_info().currsize == before


@_patient
@given(_json)
def test_whatever_is_no_pod_is_said_to_be_none_and_breaks_nothing(anything: Any) -> None:
    for candidate in (anything, {"spec": anything}, {"metadata": anything, "spec": {}}):
        with contextlib.suppress(pod_view.Malformed):
            verdict(candidate, namespace_opted_in=True)


@_patient
@given(st.recursive(_json, lambda inner: st.fixed_dictionaries({"containers": st.lists(inner)})))
def test_a_pod_of_the_wrong_shape_never_raises(spec: Any) -> None:
    made = pod()
    made["spec"] = spec
    with contextlib.suppress(pod_view.Malformed):
        verdict(made)


_WORDS = [
    "kind", "metadata", "annotations", "labels", "spec", "template", "containers", "env", "items",
    "tokenward.dev/inject", "name", "jobTemplate", "generateName", "initContainers", "volumes",
]  # fmt: skip
_VALUES = ["Pod", "Deployment", "CronJob", "List", "PodList", "Rollout", "true", "x", 7, None, True]
_manifests = st.recursive(
    st.sampled_from(_VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner),
)


@_patient
@given(st.dictionaries(st.sampled_from(_WORDS), _manifests), st.sampled_from(["json", "yaml"]))
def test_whatever_stands_in_a_manifest_breaks_nothing(manifest: Any, form: str) -> None:
    text = json.dumps(manifest) if form == "json" else yaml.safe_dump(manifest)
    document, *_ = documents(text)
    scope = inject_command._Scope(settings(), "default", frozenset({"default"}))
    judged = [
        inject_command._judged(raw, path, document, scope) for path, raw in items(document.data)
    ]
    assert list(documents(inject_command._printed(document, judged))) is not None


_IDENTITIES: list[dict[str, Any]] = [
    {"source": "secret"},
    {"source": "podCertificate"},
    {"source": "csi", "driver": "spiffe.csi.cert-manager.io", "attributes": {"a": "{spiffeId}"}},
]


def _known(version: str, identity: dict[str, Any]) -> bool:
    # A field the schema does not know yet is what an API server without the feature drops.
    since = (1, 35) if identity["source"] == "podCertificate" else (1, 32)
    return tuple(map(int, version.split(".")[:2])) >= since


@pytest.mark.parametrize(
    ("version", "identity"),
    [
        pytest.param(version, identity, id=f"{version}-{identity['source']}")
        for version in _SUPPORTED
        for identity in _IDENTITIES
        if _known(version, identity)
    ],
)
def test_the_injected_pod_passes_the_published_schema(
    version: str, identity: dict[str, Any]
) -> None:
    under = settings(identity=identity)
    for made in (pod(), recorded_pod("pod-create-replicaset"), recorded_pod("pod-create-job")):
        kubernetes_validate.validate(injected(made, under), version, strict=True)


def _violations(container: dict[str, Any]) -> list[str]:
    """Pod Security `restricted`, as far as it concerns one container."""
    context = container.get("securityContext", {})
    found = {
        "privileged": context.get("privileged", False) is False,
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": "ALL" in context.get("capabilities", {}).get("drop", [])
        and set(context.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot": context.get("runAsNonRoot") is True,
        "runAsUser": context.get("runAsUser") != 0,
        "seccompProfile": context.get("seccompProfile", {}).get("type")
        in ("RuntimeDefault", "Localhost"),
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        "probe host": all(
            "host" not in container.get(probe, {}).get("httpGet", {})
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        ),
        "procMount": context.get("procMount", "Default") == "Default",
        "windows": "windowsOptions" not in context,
    }
    return [control for control, holds in found.items() if not holds]


_RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral",
                       "persistentVolumeClaim", "projected", "secret"}  # fmt: skip


@pytest.mark.parametrize("identity", _IDENTITIES, ids=lambda identity: identity["source"])
@pytest.mark.parametrize("profile", [{}, {"runAsUser": None}])
def test_a_restricted_namespace_admits_what_we_add(
    identity: dict[str, Any], profile: dict[str, Any]
) -> None:
    before = pod()
    found = injected(before, settings(identity=identity, profiles={"default": profile}))
    assert _violations(sidecar_of(found)) == []
    for volume in found["spec"]["volumes"]:
        assert set(volume) - {"name"} <= _RESTRICTED_VOLUMES
    untouched = {"volumes", "initContainers", "containers"}
    assert {k: v for k, v in found["spec"].items() if k not in untouched} == {
        k: v for k, v in before["spec"].items() if k not in untouched
    }
