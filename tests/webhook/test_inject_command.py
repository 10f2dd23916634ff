"""`python -m webhook inject`, as a person runs it."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.server_certificates import Authority
from tests.webhook import kubectl
from tests.webhook.pods import IMAGE, SIDECAR, raw_settings
from webhook.__main__ import main

_ANNOTATED = {"annotations": {"tokenward.dev/inject": "true"}}
_APP = {"containers": [{"name": "app", "image": "x"}]}
_TEMPLATE = {"metadata": _ANNOTATED, "spec": _APP}


def _run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """In this process, with the streams that a process of its own would have."""
    streams = [io.TextIOWrapper(io.BytesIO(text), "utf-8") for text in (given.encode(), b"", b"")]
    stdin, stdout, stderr = streams
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as ended:
            main(["inject", *arguments])
    for stream in (stdout, stderr):
        stream.seek(0)
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, stdout.read(), stderr.read())


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


# Read and printed as kubectl does


def _deployment(template: str, *, head: str = "metadata: {name: web}") -> str:
    return (
        f"apiVersion: apps/v1\nkind: Deployment\n{head}\nspec:\n"
        f"  selector: {{matchLabels: {{a: b}}}}\n  template:\n{template}"
    )


_PLAIN_TEMPLATE = (
    "    metadata: {annotations: {tokenward.dev/inject: 'true'}}\n"
    "    spec: {containers: [{name: app, image: x}]}\n"
)


def _kubectl(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    file = tmp_path / "after.yaml"
    file.write_text(text, "utf-8", newline="")
    kubectl.typed(file)
    return kubectl.objects(file)


def test_untouched_documents_come_out_byte_for_byte() -> None:
    text = (
        "\ufeff# first\r\nkind: ConfigMap\r\ndata: {a: 0o7, 'on': yes}\r\n--- # next\nkind: Crd\n"
        'enum: [\'!=\', =, =~, <<]\n\n\n---\n# only a comment\n---\n{\n\t"kind": "Service"}\n\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "webhook", "inject", "-f", "-"],
        input=text.encode(),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == text.encode()


def test_a_touched_document_keeps_comments_order_and_spelling(tmp_path: Path) -> None:
    given = _deployment(
        "    metadata: # who\n"
        "      annotations:\n"
        "        tokenward.dev/inject: 'true' # ours\n"
        "    spec:\n"
        "      # the app\n"
        "      containers:\n"
        "        - name: app\n"
        '          args: [--at, 12:30:00, "1e3", "08"]   # odd\n'
        "          image: x\n"
        "# the end\n"
    )
    done = _run("-f", "-", given=given)
    lines = done.stdout.split("\n")
    assert [line for line in lines if line in given.split("\n")] == given.split("\n")
    (found,) = _kubectl(tmp_path, done.stdout)
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["--at", "12:30:00", "1e3", "08"]


def test_aliases_never_carry_an_addition_elsewhere(tmp_path: Path) -> None:
    given = (
        "apiVersion: apps/v1\nkind: Deployment\n"
        "metadata: {name: web, labels: &labels {app.kubernetes.io/name: web}}\n"
        "spec:\n"
        "  selector: {matchLabels: *labels}\n"
        "  template:\n"
        '    metadata: {labels: *labels, annotations: {tokenward.dev/inject: "true"}}\n'
        "    spec:\n"
        "      initContainers: &inits\n"
        "      - {name: a, image: x, env: &env [{name: A, value: b}]}\n"
        "      - {name: b, image: x, env: *env}\n"
        "      containers: [{name: c, image: x}]\n"
    )
    (found,) = _kubectl(tmp_path, _run("-f", "-", given=given).stdout)
    labels = {"app.kubernetes.io/name": "web"}
    assert found["metadata"]["labels"] == found["spec"]["selector"]["matchLabels"] == labels
    pod = found["spec"]["template"]
    assert pod["metadata"]["labels"] == labels | {"tokenward.dev/injected": "true"}
    for container in pod["spec"]["initContainers"][1:]:
        assert [e["name"] for e in container["env"]] == ["TOKENWARD_URL", "A"]


def test_an_anchor_on_what_changes_stays_for_its_aliases(tmp_path: Path) -> None:
    given = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- apiVersion: v1\n  kind: Pod\n"
        "  metadata:\n    name: one\n    labels: &labels\n      a: b # kept\n"
        "    annotations: {tokenward.dev/inject: 'true'}\n"
        "  spec: &spec {containers: [{name: app, image: x}]}\n"
        "- {apiVersion: v1, kind: Pod, metadata: {name: two, labels: *labels}, spec: *spec}\n"
        "- {apiVersion: v1, kind: Pod, metadata: {name: t, labels: {<<: *labels}}, spec: *spec}\n"
    )
    done = _run("-f", "-", given=given)
    assert "# kept" in done.stdout
    one, two, three = _kubectl(tmp_path, done.stdout)
    assert one["metadata"]["labels"] == {"a": "b", "tokenward.dev/injected": "true"}
    for other in (two, three):
        assert other["metadata"]["labels"] == {"a": "b"}
        assert other["spec"] == {"containers": [{"name": "app", "image": "x"}]}


def test_a_pod_of_merged_parts_is_injected(tmp_path: Path) -> None:
    given = (
        "apiVersion: v1\nkind: Pod\n"
        "metadata: {name: a, annotations: {tokenward.dev/inject: 'true'}}\n"
        "spec:\n  <<: &base {containers: [{name: app, image: x}], restartPolicy: Never}\n"
    )
    (found,) = _kubectl(tmp_path, _run("-f", "-", given=given).stdout)
    assert found["spec"]["restartPolicy"] == "Never"
    assert found["spec"]["containers"][0]["env"][0]["name"] == "TOKENWARD_URL"


def test_aliases_that_stand_for_too_much_are_refused() -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 10)]
    done = _run("-f", "-", given="kind: Pod\n" + "\n".join(lines))
    assert done.returncode == 2
    assert "aliases" in done.stderr


@pytest.mark.parametrize(
    "value", ["2026-11-28", "12:30", "2026-11-28T10:00:00Z", "", "null", "~", "!!binary aGk=", "="]
)
def test_values_that_kubectl_reads_as_texts_are_no_fault(tmp_path: Path, value: str) -> None:
    given = _deployment(
        f"    metadata:\n      annotations:\n        released: {value}\n"
        "        tokenward.dev/inject: 'true'\n"
        "    spec:\n      containers:\n      - name: app\n        image: x\n"
        "        ports: [{containerPort: 8e3}]\n"
    )
    done = _run("-f", "-", given=given)
    assert done.returncode == 0, done.stderr
    assert f"released: {value}\n" in done.stdout
    (found,) = _kubectl(tmp_path, done.stdout)
    _injected_into(found["spec"]["template"])


def test_a_value_without_quotes_is_named_with_its_line() -> None:
    given = "kind: Service\n---\n" + _deployment(
        "    metadata:\n      annotations:\n        tokenward.dev/inject: true\n"
        "    spec:\n      containers:\n      - name: app\n        image: x\n"
        "        env:\n        - {name: PORT, value: 8080}\n"
    )
    done = _run("-f", "-", given=given)
    assert done.returncode == 1
    assert 'line 11: annotation "tokenward.dev/inject" is a boolean, not a string' in done.stderr
    assert 'line 17: variable "PORT" is a number, not a string; put its value in' in done.stderr


def test_json_comes_out_as_json_with_its_indentation(tmp_path: Path) -> None:
    tabs = json.dumps(_pod(), indent="\t")
    compact = json.dumps(_pod(name="two"), separators=(",", ":"))
    service = '{"kind": "Service",\n   "apiVersion": "v1", "metadata": {"name": "s"}}'
    done = _run("-f", "-", given=f"{tabs}\n{service}\n{compact}\n")
    assert done.returncode == 0, done.stderr
    assert '\n\t"kind": "Pod"' in done.stdout
    assert f"\n{service}\n" in done.stdout
    assert len(done.stdout.rstrip().split("\n")[-1]) > len(compact)
    first, _, last = kubectl.objects(_file(tmp_path, done.stdout))
    assert (first["metadata"]["name"], last["metadata"]["name"]) == ("github", "two")
    for found in (first, last):
        _injected_into(found)


def _file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "stream.json"
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize("metadata", ["", "    metadata:\n", "    metadata: {}\n"])
@pytest.mark.parametrize("kind", ["Deployment", "CronJob"])
def test_a_template_without_metadata_is_judged_as_its_controller_makes_it(
    tmp_path: Path, kind: str, metadata: str
) -> None:
    template = metadata + "    spec: {containers: [{name: app, image: x}]}\n"
    text = _deployment(template).replace("Deployment", kind)
    if kind == "CronJob":
        text = text.replace("  selector: {matchLabels: {a: b}}\n  template:", "  template:")
        head, _, rest = text.partition("spec:\n")
        rest = "".join(f"    {line}\n" for line in rest.splitlines())
        text = f"{head}spec:\n  schedule: '* * * * *'\n  jobTemplate:\n    spec:\n{rest}"
        text = text.replace("apps/v1", "batch/v1")
    space = "kind: Namespace\napiVersion: v1\nmetadata: {name: default, labels: {%s: enabled}}\n"
    done = _run("-f", "-", given=space % "tokenward.dev/inject" + "---\n" + text)
    assert done.returncode == 0, done.stderr
    (found,) = _kubectl(tmp_path, done.stdout.partition("---\n")[2])
    spec = found["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else found["spec"]
    values = {e["name"]: e["value"] for e in _injected_into(spec["template"])["env"]}
    assert values["TOKENWARD_SPIFFE_ID"].endswith("/mcpserver/web")


def test_a_job_with_a_generated_name_needs_the_annotation() -> None:
    job = _workload("Job") | {"metadata": {"generateName": "migrate-"}}
    done = _run("-f", "-", given=_stream(job))
    assert done.returncode == 1
    assert "another name on each run; set annotation tokenward.dev/server" in done.stderr


def test_the_items_of_a_typed_list_are_injected(tmp_path: Path) -> None:
    item = {"metadata": _pod()["metadata"], "spec": _APP}
    pods = {"apiVersion": "v1", "kind": "PodList", "items": [item]}
    done = _run("-f", "-", given=_stream(pods))
    found = yaml.safe_load(done.stdout)
    _injected_into(found["items"][0])
    assert "kind" not in found["items"][0]


def test_a_denied_item_is_left_out_of_its_list() -> None:
    bad = _pod(name="bad", annotations={"tokenward.dev/inject": "yes"})
    done = _run("-f", "-", given=_stream({"kind": "List", "items": [bad, _pod()]}))
    assert done.returncode == 1
    (found,) = yaml.safe_load(done.stdout)["items"]
    assert found["metadata"]["name"] == "github"


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("argoproj.io/v1alpha1", "Rollout"),
        ("serving.knative.dev/v1", "Service"),
        ("apps.openshift.io/v1", "DeploymentConfig"),
        ("v1", "ReplicationController"),
    ],
)
@pytest.mark.parametrize(
    ("word", "said"), [("true", "not injected offline"), ("yes", "will deny its pods")]
)
def test_another_kind_with_a_pod_template_passes_with_a_word(
    version: str, kind: str, word: str, said: str
) -> None:
    metadata = {"annotations": {"tokenward.dev/inject": word}}
    spec = {"template": {"metadata": metadata, "spec": _APP}}
    text = _stream({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec})
    done = _run("-f", "-", given=text)
    assert (done.returncode, done.stdout) == (0, text)
    assert f'warning: "{kind} default/x": ' in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("field", ["annotations", "labels"])
def test_an_opt_in_in_the_wrong_place_is_warned_about(field: str) -> None:
    deployment = _workload("Deployment")
    deployment["metadata"][field] = {"tokenward.dev/inject": "true"}
    deployment["spec"]["template"] = {"spec": _APP}
    done = _run("-f", "-", given=_stream(deployment))
    assert f"object's {field} has no effect; it belongs in spec.template.metadata" in done.stderr
    deployment["metadata"] = {"name": "github"}
    deployment["spec"]["template"] = {"metadata": {"labels": {"tokenward.dev/inject": "true"}}}
    deployment["spec"]["template"]["spec"] = _APP
    done = _run("-f", "-", given=_stream(deployment))
    assert "template's labels has no effect" in done.stderr
    service = {"kind": "Service", "metadata": {"annotations": {"tokenward.dev/inject": "true"}}}
    assert "belongs in the annotations of pods" in _run("-f", "-", given=_stream(service)).stderr


def test_explain_says_where_a_quota_asks_for_a_cpu_limit() -> None:
    explained = yaml.safe_load(_run("-f", "-", "--explain", given=_stream(_pod())).stdout)
    assert any("ResourceQuota" in note for note in explained["notes"])
    metadata = {"annotations": _ANNOTATED["annotations"] | {"tokenward.dev/cpu-limit": "1"}}
    done = _run("-f", "-", "--explain", given=_stream(_pod(**metadata)))
    assert "notes" not in yaml.safe_load(done.stdout)
