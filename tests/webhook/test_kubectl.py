"""The offline command beside kubectl: what kubectl reads before, it reads after, and ours."""

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.webhook import kubectl
from tests.webhook.manifests import COMMENTS, Manifest
from tests.webhook.pods import SIDECAR

_BATCHES, _PER_BATCH = 10, 50
_OURS = ("tokenward-credential", "tokenward-authserver-ca", "tokenward-no-api-token")


def _inject(file: Path) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "webhook", "inject", "-f", str(file)],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def _pod(found: dict[str, Any]) -> dict[str, Any]:
    if found["kind"] == "Pod":
        return found
    spec: dict[str, Any] = found["spec"]
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    template: dict[str, Any] = spec["template"]
    return template


def _without_ours(found: dict[str, Any]) -> Any:
    """The object without what we add. Fails if we added anything twice, or not at all."""
    pod = _pod(found)
    inits = pod["spec"]["initContainers"]
    assert [c["name"] for c in inits].count(SIDECAR) == 1
    assert inits[0]["name"] == SIDECAR
    pod["spec"]["initContainers"] = inits[1:]
    volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
    assert all(volumes.count(name) == 1 for name in _OURS)
    pod["spec"]["volumes"] = [v for v in pod["spec"]["volumes"] if v["name"] not in _OURS]
    for container in [*inits[1:], *pod["spec"]["containers"]]:
        assert [entry["name"] for entry in container["env"]].count("TOKENWARD_URL") == 1
        container["env"] = [e for e in container["env"] if e["name"] != "TOKENWARD_URL"]
    assert pod["metadata"]["labels"].pop("tokenward.dev/injected") == "true"
    for key in ("status", "authserver-ca"):
        assert pod["metadata"]["annotations"].pop(f"tokenward.dev/{key}")
    return _compact(found)


def _compact(value: Any) -> Any:
    """Without members that are null or empty: kubectl's types drop them."""
    if isinstance(value, dict):
        compact = {key: _compact(item) for key, item in value.items()}
        return {key: item for key, item in compact.items() if item not in (None, {}, [])}
    return [_compact(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("batch", range(_BATCHES))
def test_kubectl_reads_the_same_before_and_after(tmp_path: Path, batch: int) -> None:
    random = Random(20261128 + batch)
    texts = [Manifest(random, at).text() for at in range(_PER_BATCH)]
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text("---\n".join(texts), "utf-8")
    after.write_text(_inject(before)[0], "utf-8")
    for read in (kubectl.objects, kubectl.typed):
        found = read(after)
        assert len(found) == _PER_BATCH
        for expected, one in zip(read(before), found, strict=True):
            assert _without_ours(one) == _compact(expected)
    for comment in COMMENTS:
        texts_of = [file.read_text("utf-8").count(comment) for file in (before, after)]
        assert texts_of[0] == texts_of[1], comment
