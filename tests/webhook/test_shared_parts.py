"""What is made once for many workloads has nothing of any of them, nor of another configuration."""

from itertools import permutations, product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.webhook.pods import NAMESPACE, injected, pod, settings, sidecar_of, verdict, volume_of
from webhook import options, pod_view, sidecar_spec
from webhook.evaluate import evaluate
from webhook.reasons import Reason
from webhook.settings import Settings
from webhook.value_types import CaBundle

_GATEWAY = {
    "gateway": "8080:8000",
    "gateway-open-paths": "/healthz",
    "gateway-origins": "https://app.example.com",
}
_CSI = {
    "source": "csi",
    "driver": "csi.example.com",
    "attributes": {"quoted": 'a "{server}" \\ {namespace} \u00e9', "id": "{spiffeId}"},
}
_IDENTITIES: list[dict[str, Any]] = [{"source": "secret"}, {"source": "podCertificate"}, _CSI]
_PROFILE = {"scopes": ["mcp", "read"], "apiProxy": "http://proxy.example.com:3128"}


def _built(
    namespace: str, server: str, resource: str | None, found: dict[str, str], under: Settings
) -> sidecar_spec.Sidecar:
    read, refusals = options.read(found, {}, under)
    assert refusals == ()
    amounts = under.profiles[read.profile].amounts
    return sidecar_spec.build(namespace, server, resource, read.sidecar_options, amounts, under)


@pytest.mark.parametrize("identity", _IDENTITIES, ids=lambda identity: identity["source"])
@pytest.mark.parametrize("resource", [None, "https://a.example.com/mcp"])
@pytest.mark.parametrize("chosen", [{}, _GATEWAY, {"port": "16000", "log-level": "debug"}])
@pytest.mark.parametrize("profile", [{}, _PROFILE])
def test_the_parts_that_are_json_already_say_what_the_container_says(
    identity: dict[str, Any], resource: str | None, chosen: dict[str, str], profile: dict[str, Any]
) -> None:
    under = settings(identity=identity, profiles={"default": profile})
    found = {f"tokenward.dev/{key}": value for key, value in chosen.items()}
    sidecar = _built("ns", "github", resource, found, under)
    assert msgspec.json.encode(sidecar.container_for_json) == msgspec.json.encode(sidecar.container)
    names = [variable["name"].removeprefix("TOKENWARD_") for variable in sidecar.container["env"]]
    assert [name for name in names if not name.startswith("GATEWAY")] == [
        "AUTHSERVER_URL", "AUTHSERVER_CA_FILE", "CREDENTIAL_DIR", "ISSUER",
        *(["SCOPES"] if profile else []),
        "PORT", "OPS_PORT", "LOG_LEVEL", "SPIFFE_ID",
        *(["RESOURCE"] if resource else []),
        *(["API_PROXY"] if profile else []),
    ]  # fmt: skip
    assert [name for name in names if name.startswith("GATEWAY")] == [
        key.upper().replace("-", "_") for key in chosen if key.startswith("gateway")
    ]


@pytest.mark.parametrize("identity", _IDENTITIES, ids=lambda identity: identity["source"])
@pytest.mark.parametrize("chosen", [{}, _GATEWAY], ids=["plain", "gateway"])
def test_nothing_of_a_workload_is_in_another_ones_patch(
    identity: dict[str, Any], chosen: dict[str, str]
) -> None:
    under = settings(identity=identity)
    workloads = list(product(("north", "south"), ("alpha", "beta")))
    for order in permutations(workloads):
        for namespace, server in order:
            made = pod({"resource": f"https://{server}.{namespace}/mcp", "server": server} | chosen)
            told = evaluate(pod_view.read(made), namespace, under, namespace_opted_in=False)
            text = told.patch.decode()
            assert f"spiffe://example.org/ns/{namespace}/mcpserver/{server}" in text
            assert f"https://{server}.{namespace}/mcp" in text
            others = {"north", "south", "alpha", "beta"} - {namespace, server}
            assert [name for name in others if name in text] == []


def test_a_workload_without_a_resource_gets_none_of_another() -> None:
    under = settings()
    for resource in ("https://a.example.com/mcp", None, "https://b.example.com/mcp", None):
        made = injected(pod({} if resource is None else {"resource": resource}), under)
        told = {entry["name"]: entry["value"] for entry in sidecar_of(made)["env"]}
        assert told.get("TOKENWARD_RESOURCE") == resource


_OTHER_PEM = "-----BEGIN CERTIFICATE-----\nOTHER\n-----END CERTIFICATE-----\n"
_CHANGES: list[dict[str, Any]] = [
    {"image": f"registry.example.com/marked@sha256:{'b' * 64}"},
    {"trustDomain": "marked.example.net"},
    {"issuer": "https://marked.example.com"},
    {"authserver": {"url": "https://marked.svc:8443", "caFile": CaBundle(Path("b"), _OTHER_PEM)}},
    {"identity": {"source": "podCertificate", "signerName": "marked.dev/workload"}},
    {"profiles": {"default": {"scopes": ["marked"]}}},
    {"profiles": {"default": {"runAsUser": 20_000}}},
    {"profiles": {"default": {"apiProxy": "http://marked.example.com:1"}}},
    {"profiles": {"default": {"memoryLimit": {"default": "99Mi", "min": "96Mi", "max": "1Gi"}}}},
]


@pytest.mark.parametrize("change", _CHANGES, ids=lambda change: next(iter(change)))
def test_a_pod_gets_what_the_configuration_in_force_says(change: dict[str, Any]) -> None:
    made = pod(_GATEWAY | {"resource": "https://a.example.com/mcp"})
    before, changed = settings(), settings(**change)
    fresh = {id(under): _afresh(made, under) for under in (before, changed)}
    assert fresh[id(before)] != fresh[id(changed)]
    for under in (before, changed, before, changed):
        assert verdict(made, under).patch == fresh[id(under)]


def test_annotations_are_read_under_the_configuration_in_force() -> None:
    narrow = settings()
    bounds = {"default": "96Mi", "min": "48Mi", "max": "2Gi"}
    wide = settings(profiles={"default": {"memoryLimit": bounds}, "other": {}})
    for chosen in ({"profile": "other"}, {"memory-limit": "1Gi"}):
        for resource in ("https://a.example.com/mcp", "https://b.example.com/mcp"):
            made = pod(chosen | {"resource": resource})
            told = [verdict(made, under).decision for under in (wide, narrow, wide, narrow)]
            assert told == ["injected", "denied"] * 2


def _afresh(made: dict[str, Any], under: Settings) -> bytes:
    """What a process says that has read these settings and nothing else before."""
    for remembering in (options._remembered, options._shared, sidecar_spec._shared):
        remembering.cache_clear()
    return verdict(made, under).patch


_OPTIONS: list[dict[str, str]] = [
    {"port": "16000"},
    {"ops-port": "16001"},
    {"log-level": "debug"},
    {"profile": "other"},
    {"init-order": "last"},
    {"memory-limit": "100Mi"},
    {"cpu-limit": "1"},
    {"skip-containers": "app"},
    _GATEWAY,
    _GATEWAY | {"gateway": "8081:8000"},
    _GATEWAY | {"gateway-open-paths": "/healthz,/other"},
]


def test_no_option_is_taken_from_another_pod() -> None:
    under = settings(profiles={"default": {}, "other": {"scopes": ["other"]}})
    common = {"resource": "https://a.example.com/mcp"}
    # Without an init container, the first and the last place are the same.
    made = [
        pod(common | chosen, initContainers=[{"name": "migrate"}]) for chosen in ({}, *_OPTIONS)
    ]
    alone = [_afresh(one, under) for one in made]
    assert len(set(alone)) == len(alone)
    for _ in range(2):
        assert [verdict(one, under).patch for one in made] == alone
        assert [verdict(one, under).patch for one in reversed(made)] == alone[::-1]


@pytest.mark.parametrize(
    ("key", "bad"), [("server", "No_Name"), ("resource", "ftp://a.example.com")]
)
def test_a_bad_value_of_a_workloads_own_is_told_in_its_place_whatever_was_remembered(
    key: str, bad: str
) -> None:
    under = settings()
    assert verdict(pod({}), under).decision == "injected"
    told = verdict(pod({key: bad}), under)
    assert (told.decision, told.reason, len(told.refusals)) == ("denied", Reason.BAD_VALUE, 1)
    assert f'tokenward.dev/{key} is "{bad}"' in told.message
    faulty = {"profile": "none", "port": "80", "gateway": "1"}
    for _ in range(2):
        without = verdict(pod(faulty), under).refusals
        among = verdict(pod(faulty | {key: bad}), under).refusals
        assert [text for text in among if key not in text.partition(" is ")[0]] == list(without)
        keys = [text.split()[1].removeprefix("tokenward.dev/") for text in among]
        assert keys == ["profile", key, "port", "gateway"]


def test_a_caller_cannot_change_what_others_get() -> None:
    """What `container` gives is new each time, as far as anybody adds to it."""
    under = settings()
    one = _built(NAMESPACE, "one", None, {}, under)
    other = _built(NAMESPACE, "other", None, {}, under)
    one.container["env"].append({"name": "X", "value": "x"})
    one.container["image"] = "x"
    assert {"name": "X", "value": "x"} not in one.container["env"] + other.container["env"]
    assert other.container["image"] == one.container["image"] == under.image


def test_each_credential_is_the_workloads_own() -> None:
    under = settings()
    for server in ("one", "other", "one"):
        found = volume_of(injected(pod({"server": server}), under), "tokenward-credential")
        assert found["secret"]["secretName"] == f"{server}-tokenward"
