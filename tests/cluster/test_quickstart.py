"""The quickstart, as an overlay and as a release's file, with real images and a real kubelet."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from release.install_manifests import write_manifests
from tests.cluster.controller import apply_crds
from tests.cluster.nodes import ASK, SIDECAR_IMAGE, ended, log_of, started
from tests.cluster.whole import apply_overlay, pods, remove, servers, system, wait_ready
from tests.webhook.pods import SIDECAR

pytestmark = [
    pytest.mark.skipif(not SIDECAR_IMAGE, reason="no node has this sidecar's image"),
    pytest.mark.skipif(
        "TOKENWARD_TEST_DISPOSABLE" not in os.environ,  # noqa: TID251 - how a person says it
        reason="installs into the whole cluster",
    ),
    pytest.mark.timeout(600),
]

_SECRET = ("create", "secret", "generic", "github-app", "--from-literal=secret=s3cret")


@pytest.fixture(params=["overlay", "install-quickstart.yaml"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    apply_crds(system)
    if request.param == "overlay":
        apply_overlay("quickstart")
    else:
        images = os.environ["TOKENWARD_TEST_IMAGES"].split()  # noqa: TID251 - the cluster says it
        # registry/tokenward/NAME@sha256:…
        named = {one.partition("@")[0].rpartition("/")[2]: one for one in images}
        write_manifests(named, tmp_path)
        system.run("apply", "-f", str(tmp_path / request.param))
    system.inside(*_SECRET)
    yield
    remove("quickstart")


def test_it_ends_ready_and_a_pod_of_the_bound_server_starts(installation: None) -> None:
    wait_ready(system, "mcpauthserver/main")
    wait_ready(servers, "mcpserverauth/notes")
    names = ("deployment/tokenward-webhook", "deployment/tokenward-controller", "deployment/main")
    wait_ready(system, *names)
    made = started("probe", ASK)
    made["metadata"]["annotations"] = {
        "tokenward.dev/inject": "true",
        "tokenward.dev/server": "notes",
    }
    servers.create(made)
    found = ended(servers, "probe")
    assert found["status"]["phase"] == "Succeeded"
    assert "401 Unauthorized" in log_of(servers, "probe", "app")
    assert SIDECAR in [one["name"] for one in found["spec"]["initContainers"]]
    # None of ours had to be started a second time.
    counts = {
        one["metadata"]["name"]: [c["restartCount"] for c in one["status"]["containerStatuses"]]
        for one in pods(system, "app.kubernetes.io/part-of=tokenward")
    }
    assert all(count == [0] for count in counts.values()), counts
