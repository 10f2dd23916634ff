"""Every kustomization rendered by the kustomize inside kubectl, and every object's schema."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
RENDERED = (
    "base", "overlays/self-managed", "overlays/production", "overlays/example", "example",
)  # fmt: skip
# What the controller serves and runs with; they hold kinds of their own.
CONTROLLED = (
    "crds", "overlays/dev", "overlays/quickstart", "overlays/demo", "overlays/demo/workloads",
    "tenant", "tenant/cert-manager", "tenant/network-policy",
)  # fmt: skip

_CUSTOM = Path(__file__).parent / "custom-resources.yaml"

VERSIONS = [
    version
    for version in kubernetes_validate.utils.all_versions()
    if tuple(map(int, version.split(".")[:2])) >= (1, 32)
]


def kubectl() -> str:
    """The kubectl that comes with the developers' tools, or else the one of this machine."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise FileNotFoundError("kubectl")
    return found


def render(name: str, workspace: Path) -> list[dict[str, Any]]:
    """The objects of one kustomization. Certificates it needs are made in `workspace`."""
    copy = workspace / "manifests"
    if not copy.exists():
        shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("generated", "keys"))
        subprocess.run([copy / "components/self-managed-serving/make-certificates"], check=True)
        make_keys(copy / "overlays/example")
    done = subprocess.run(
        [kubectl(), "kustomize", copy / name], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"{name}: {done.stderr}")
    return [found for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found]


def make_keys(overlay: Path) -> None:
    """Make the overlay's keys with the commands of the page on installing."""
    page = (MANIFESTS.parent / "docs/how-to/install.md").read_text("utf-8")
    commands = page.partition("## 2. Make the keys")[2].partition("```sh\n")[2].partition("```")[0]
    subprocess.run(["sh", "-ec", commands], cwd=overlay, input="pasted\n", text=True, check=True)
    for empty in (one for one in (overlay / "keys").iterdir() if not one.read_text()):
        empty.write_text("pasted\n")


def faults(found: dict[str, Any], version: str) -> Iterator[str]:
    """What is wrong with the object by the schema of that Kubernetes version, or by its CRD's."""
    where = f"{found['kind']} {found['metadata']['name']}"
    try:
        custom = _custom_resources().get(f"{found['apiVersion']}/{found['kind']}")
        if custom is not None:
            jsonschema.validate(found, custom)
        else:
            kubernetes_validate.validate(found, version, strict=True)
    except jsonschema.ValidationError as invalid:
        yield f"{where} ({version}): {'/'.join(map(str, invalid.path))}: {invalid.message[:300]}"
    except kubernetes_validate.SchemaNotFoundError as unknown:
        yield f"{where} ({version}): {unknown.message}"


@cache
def _custom_resources() -> dict[str, Any]:
    described: dict[str, Any] = yaml.load(_CUSTOM.read_text("utf-8"), yaml.CSafeLoader)
    described.pop("definitions")
    return described | dict(_own_resources())


def _own_resources() -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of manifests/crds, where unknown members are faults."""
    for file in sorted((MANIFESTS / "crds").glob("mcp*.yaml")):
        spec = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"], outermost=True)
            yield f"{spec['group']}/{version['name']}/{spec['names']['kind']}", schema


def _strict(schema: Any, *, outermost: bool = False) -> Any:
    """As an API server's strict decoding: no member that the schema does not name."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _strict(value) for name, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or outermost
    if isinstance(schema.get("properties"), dict) and not open_ended:
        made["additionalProperties"] = False
    return made
