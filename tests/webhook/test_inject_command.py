"""`python -m webhook inject`, as a person runs it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.server_certificates import Authority
from tests.webhook.pods import IMAGE, SIDECAR, raw_settings

_ANNOTATED = {"annotations": {"tokenward.dev/inject": "true"}}
_APP = {"containers": [{"name": "app", "image": "x"}]}
_TEMPLATE = {"metadata": _ANNOTATED, "spec": _APP}


def _run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "webhook", "inject", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def _stream(*objects: Any) -> str:
    return yaml.safe_dump_all(objects)


def _pod(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "github"} | _ANNOTATED | metadata,
        "spec": _APP,
    }


def _workload(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"template": _TEMPLATE}
    if kind == "CronJob":
        spec = {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}
    return {"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "github"}, "spec": spec}


def _injected_into(template: dict[str, Any]) -> dict[str, Any]:
    (container,) = template["spec"]["initContainers"]
    assert container["name"] == SIDECAR
    assert isinstance(container, dict)
    return container


def test_a_mixed_stream_comes_out_injected_and_in_order() -> None:
    kinds = ["Deployment", "StatefulSet", "DaemonSet", "Job"]
    given = _stream(_pod(), *(_workload(kind) for kind in kinds), _workload("CronJob"))
    done = _run("-f", "-", given=given)
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    assert [one["kind"] for one in found] == ["Pod", *kinds, "CronJob"]
    templates = [found[0], *(one["spec"]["template"] for one in found[1:-1])]
    templates.append(found[-1]["spec"]["jobTemplate"]["spec"]["template"])
    for template in templates:
        values = {e["name"]: e["value"] for e in _injected_into(template)["env"]}
        assert values["TOKENWARD_SPIFFE_ID"].endswith("/ns/default/mcpserver/github")
        assert "ownerReferences" not in template["metadata"]


def test_what_holds_no_opted_in_pod_passes_as_it_was_written() -> None:
    text = "# a comment\nkind: ConfigMap\ndata: {a: 0o7, 'on': yes}\n"
    plain = "kind: Deployment\nspec: {template: {spec: {containers: [{name: a}]}}} # mine\n"
    done = _run("-f", "-", given=f"{text}--- # next\n{plain}...\n---\n")
    assert done.returncode == 0, done.stderr
    assert text.strip() in done.stdout
    assert plain.strip() in done.stdout


def test_the_items_of_a_list_are_injected() -> None:
    done = _run("-f", "-", given=_stream({"kind": "List", "items": [_pod(), {"kind": "Service"}]}))
    found = yaml.safe_load(done.stdout)
    _injected_into(found["items"][0])
    assert found["items"][1] == {"kind": "Service"}


def test_a_namespace_of_the_stream_opts_its_pods_in() -> None:
    labels = {"tokenward.dev/inject": "enabled"}
    space = {"kind": "Namespace", "metadata": {"name": "mcp", "labels": labels}}
    inside = _pod(annotations={"a": "b"}, namespace="mcp")
    outside = _pod(annotations={"a": "b"}, namespace="other")
    done = _run("-f", "-", given=_stream(space, inside, outside))
    _, first, second = yaml.safe_load_all(done.stdout)
    _injected_into(first)
    assert second == outside


def test_the_namespace_is_the_objects_or_the_options() -> None:
    done = _run("-f", "-", "--namespace", "mcp", "--explain", given=_stream(_pod()))
    assert yaml.safe_load(done.stdout)["object"] == "Pod mcp/github"
    named = _stream(_pod(namespace="own"))
    done = _run("-f", "-", "--namespace", "mcp", "--explain", given=named)
    assert yaml.safe_load(done.stdout)["object"] == "Pod own/github"


def test_a_denied_object_is_left_out_explained_on_stderr_and_told_by_the_exit_code() -> None:
    bad = _pod(annotations={"tokenward.dev/inject": "yes", "tokenward.dev/prot": "1"})
    done = _run("-f", "-", given=_stream(bad, {"kind": "Service"}))
    assert done.returncode == 1
    assert list(yaml.safe_load_all(done.stdout)) == [{"kind": "Service"}]
    assert "allowed: true, false" in done.stderr
    assert "did you mean tokenward.dev/port?" in done.stderr


def test_explain_tells_decision_reason_and_patch_of_each_object() -> None:
    denied = _pod(annotations={"tokenward.dev/inject": "yes"})
    done = _run("-f", "-", "--explain", given=_stream(_pod(), denied, {"kind": "Service"}))
    first, second = yaml.safe_load_all(done.stdout)
    assert (first["decision"], first["reason"]) == ("injected", "injected")
    assert {operation["op"] for operation in first["patch"]} == {"add"}
    assert (second["decision"], second["reason"]) == ("denied", "bad-value")
    assert second["patch"] == []
    assert done.returncode == 1


def test_injecting_what_was_injected_changes_nothing() -> None:
    once = _run("-f", "-", given=_stream(_workload("Deployment"), _pod())).stdout
    assert _run("-f", "-", given=once).stdout == once


def test_a_configuration_file_decides_what_goes_in(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(Authority().pem, "ascii")
    section = {"url": "https://a.svc:8443", "caFile": "ca.pem"}
    config = tmp_path / "webhook.yaml"
    config.write_text(yaml.safe_dump(raw_settings(authserver=section)), "utf-8")
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(_stream(_pod()), "utf-8")
    done = _run("-f", str(manifest), "--config", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert _injected_into(yaml.safe_load(done.stdout))["image"] == IMAGE


@pytest.mark.parametrize(
    "malformed",
    [{"kind": "Pod"}, {"kind": "Pod", "spec": []}, {"kind": "Job", "spec": {"template": 7}}],
)
def test_an_object_that_holds_no_proper_pod_is_denied(malformed: Any) -> None:
    done = _run("-f", "-", given=_stream(malformed))
    assert done.returncode == 1
    assert "not a pod" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("-f", "/nonexistent.yaml"),
        ("-f", "-", "--config", "/nonexistent.yaml"),
        (),
        ("-f", "-", "--unknown"),
    ],
)
def test_bad_usage_is_exit_code_2_and_one_clear_line(arguments: tuple[str, ...]) -> None:
    done = _run(*arguments, given=_stream(_pod()))
    assert done.returncode == 2
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_yaml_is_bad_usage() -> None:
    done = _run("-f", "-", given="a: [")
    assert done.returncode == 2
    assert "not YAML" in done.stderr
