"""Kubernetes bounds what a policy may cost; past the bound the guard would refuse valid pods."""

import pytest

from tests.cluster.cluster import Cluster, Object, eventually
from tests.cluster.pods import intact, named
from tests.cluster.policies import refuse_pods_unless

_CUBIC = (
    "object.spec.containers.all(a, object.spec.containers.all(b, "
    "object.spec.containers.all(c, a.name + b.name != c.name)))"
)


def _crowd(made: Object, containers: int, mounts: int) -> Object:
    """The pod with that many more containers, each with that many mounts."""
    names = [f"v{number}" for number in range(mounts)]
    app = {
        "image": "a",
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in names],
    }
    made["spec"].setdefault("volumes", []).extend({"name": n, "emptyDir": {}} for n in names)
    made["spec"]["containers"].extend({"name": f"c{n}"} | app for n in range(containers))
    return made


@pytest.mark.parametrize(("containers", "mounts"), [(3000, 1), (200, 50), (5, 2000)])
def test_the_guard_can_afford_every_pod(guarded: Cluster, containers: int, mounts: int) -> None:
    made = _crowd(intact("large", guarded.namespace), containers, mounts)
    assert guarded.refusal(made) == ""


def test_an_api_server_refuses_what_it_cannot_afford(cluster: Cluster) -> None:
    """The control: the bound is in force here, and a pod of a hundred containers can reach it."""
    refuse_pods_unless(cluster, "tokenward-test-cubic", _CUBIC)
    made = _crowd(named("large", {"inject": "false"}), 100, 1)
    eventually(lambda: cluster.refusal(made), lambda told: "cost limit exceeded" in told)
