"""The guard's second half, whose parameter is the webhook's ConfigMap."""

import json
import os

import pytest
import yaml

from tests.cluster.cluster import Cluster, Object, eventually, narrowed
from tests.cluster.pods import intact, named
from tests.cluster.policies import refuse_pods_unless
from tests.webhook.pods import IMAGE, raw_settings, sidecar_of

_OTHER_IMAGE = f"registry.example.com/tokenward/sidecar@sha256:{'b' * 64}"
_REFUSED = "image is not the configured one"
_NAME = "tokenward-guard-configuration"
_BINDING, _POLICY = "validatingadmissionpolicybinding", "validatingadmissionpolicy"

pytestmark = pytest.mark.skipif(
    "TOKENWARD_TEST_DISPOSABLE" not in os.environ,  # noqa: TID251 - how a person says it
    reason="an older API server follows no parameters afterwards, until it is started anew",
)


def _configure(cluster: Cluster, image: str) -> None:
    raw = raw_settings(image=image)
    raw["authserver"] |= {"caFile": "ca.pem"}
    data = {"webhook.yaml": yaml.safe_dump(raw, width=1000)}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tokenward-webhook"}}
    cluster.inside("apply", "-f", "-", given=made | {"data": data})


def _put_up(cluster: Cluster, shipped: list[Object]) -> None:
    for one in shipped:
        if one["metadata"]["name"] == _NAME:
            made = narrowed(one, cluster)
            if "paramRef" in made["spec"]:
                made["spec"]["paramRef"]["namespace"] = cluster.namespace
            cluster.apply_everywhere(made)


def _with_image(cluster: Cluster, image: str) -> Object:
    made = intact("made", cluster.namespace)
    sidecar_of(made)["image"] = image
    return made


def _follows(cluster: Cluster, allowed: str, refused: str) -> None:
    """Wait until the one image is refused; the other must then pass."""
    made = _with_image(cluster, refused)
    eventually(lambda: cluster.refusal(made), lambda told: _REFUSED in told)
    assert cluster.refusal(_with_image(cluster, allowed)) == ""


def test_removed_as_documented_and_installed_again_it_follows(
    cluster: Cluster, shipped: list[Object]
) -> None:
    """Since 1.37 a parameter that the stopped cache does not hold is read from the API.

    The first test here, for only once in the life of an API server does that cache stop.
    """
    if _minor_version(cluster) < 37:
        pytest.skip("this API server reads parameters from its cache alone (kubernetes#130887)")
    _configure(cluster, IMAGE)
    _put_up(cluster, shipped)
    _follows(cluster, allowed=IMAGE, refused=_OTHER_IMAGE)
    cluster.inside("delete", "configmap", "tokenward-webhook")
    other = _with_image(cluster, _OTHER_IMAGE)
    eventually(lambda: cluster.refusal(other), lambda told: told == "")
    _take_down(cluster)
    _configure(cluster, _OTHER_IMAGE)
    _put_up(cluster, shipped)
    _follows(cluster, allowed=_OTHER_IMAGE, refused=IMAGE)
    _configure(cluster, IMAGE)
    _follows(cluster, allowed=IMAGE, refused=_OTHER_IMAGE)


def test_it_follows_the_configuration(cluster: Cluster, shipped: list[Object]) -> None:
    """Before 1.37 once in the life of an API server: docs/decisions/guard-policy.md, Costs."""
    _configure(cluster, IMAGE)
    _put_up(cluster, shipped)
    _follows(cluster, allowed=IMAGE, refused=_OTHER_IMAGE)
    _configure(cluster, _OTHER_IMAGE)
    _follows(cluster, allowed=_OTHER_IMAGE, refused=IMAGE)
    cluster.inside("delete", "configmap", "tokenward-webhook")
    current = _with_image(cluster, IMAGE)
    eventually(lambda: cluster.refusal(current), lambda told: told == "")


def _take_down(cluster: Cluster) -> None:
    """Delete policy and binding, and wait until the API server has noticed.

    It takes changes of bindings over in their order, so another one that is deleted later shows it.
    """
    witness = f"tokenward-test-witness-{cluster.suffix}"
    refuse_pods_unless(cluster, "tokenward-test-witness", "!has(object.metadata.labels.witness)")
    made = named("witness", {"inject": "false"})
    made["metadata"]["labels"] = {"witness": "true"}
    eventually(lambda: cluster.refusal(made), lambda told: witness in told)
    cluster.run("delete", _BINDING, f"{_NAME}-{cluster.suffix}")
    cluster.run("delete", _POLICY, f"{_NAME}-{cluster.suffix}")
    cluster.run("delete", _BINDING, witness)
    eventually(lambda: cluster.refusal(made), lambda told: told == "")


def _minor_version(cluster: Cluster) -> int:
    found = json.loads(cluster.run("get", "--raw", "/version"))
    return int(found["minor"].rstrip("+"))
