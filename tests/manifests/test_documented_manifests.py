"""The manifests of the pages, and the configuration that every installation starts with."""

import base64
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from authserver.config.loader import load
from authserver.config.settings import Settings
from authserver.endpoints import discovery
from demo.pki import CertificateAuthority
from tests.manifests.conftest import Rendered
from tests.manifests.rendering import RENDERED, VERSIONS, faults, kubectl, make_keys
from tests.support.deployment import configuration_of, write_material

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs/how-to"
INSTALLED = [name for name in RENDERED if name != "example"]
EXAMPLE = "overlays/example"
_MOUNT = "/var/run/tokenward"


def documented(page: str, kind: str) -> list[dict[str, Any]]:
    """The manifests in a page's blocks ```yaml KIND."""
    blocks = re.findall(rf"^```yaml {kind}\n(.*?)^```", (HOW_TO / page).read_text(), re.M | re.S)
    return [found for block in blocks for found in yaml.safe_load_all(block)]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def authserver_of(objects: list[dict[str, Any]], folder: Path) -> Settings:
    """The authserver's configuration of an overlay, with its mounted files written to `folder`."""
    text = named(objects, "ConfigMap", "tokenward-authserver")["data"]["authserver.yaml"]
    write_material(folder, *(CertificateAuthority.create(name) for name in ("one", "two")))
    files = {"tls.crt": "tls.crt", "tls.key": "tls.key", "ca.crt": "workloads.pem"}
    files |= {"encryption-k1": "k1", "signing-1.pem": "signing.pem"}
    made = [o["data"] for o in objects if o["metadata"]["name"] == "tokenward-authserver-keys"]
    keys = made[0] if made else {}
    for path in set(re.findall(rf"{_MOUNT}/[\w./-]+", text)):
        target = Path(str(folder) + path)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = folder / files.get(target.name, "upstream-secret")
        own = base64.b64decode(keys.get(target.name, ""))
        target.write_bytes(own or content.read_bytes())
    (folder / "authserver.yaml").write_text(text.replace(_MOUNT, f"{folder}{_MOUNT}"))
    return load(folder / "authserver.yaml")


@pytest.mark.parametrize("name", INSTALLED)
def test_the_authserver_accepts_the_configuration_that_an_overlay_ships(
    rendered: Rendered, name: str, tmp_path: Path
) -> None:
    settings = authserver_of(rendered[name], tmp_path)
    deployment = named(rendered[name], "Deployment", "tokenward-authserver")["spec"]
    assert settings.storage.replicas == deployment["replicas"]
    assert settings.listeners.public.behind_tls_proxy


@pytest.mark.parametrize("name", ["overlays/production", EXAMPLE])
def test_the_password_is_in_the_secret_and_the_configuration_in_a_config_map(
    rendered: Rendered, name: str
) -> None:
    text = named(rendered[name], "ConfigMap", "tokenward-authserver")["data"]["authserver.yaml"]
    storage = yaml.safe_load(text)["storage"]
    assert storage["passwordFile"] == f"{_MOUNT}/keys/postgresql-password"
    assert re.fullmatch(r"postgresql://tokenward@[^:@]+:5432/\S+", storage["url"])


def test_the_example_overlay_makes_every_key_that_its_configuration_names(
    rendered: Rendered,
) -> None:
    """The test above loads them."""
    objects = rendered[EXAMPLE]
    text = named(objects, "ConfigMap", "tokenward-authserver")["data"]["authserver.yaml"]
    data = named(objects, "Secret", "tokenward-authserver-keys")["data"]
    assert set(re.findall(rf"{_MOUNT}/keys/([\w.-]+)", text)) == set(data)
    assert len(base64.b64decode(base64.b64decode(data["encryption-k1"]))) == 32
    assert base64.b64decode(data["signing-1.pem"]).startswith(b"-----BEGIN PRIVATE KEY-----")


def test_the_pages_keys_are_readable_by_nobody_else(tmp_path: Path) -> None:
    make_keys(tmp_path)
    keys = tmp_path / "keys"
    modes = {stat.S_IMODE(file.stat().st_mode) for file in [keys, *keys.iterdir()]}
    assert modes == {0o700, 0o600}


def test_the_example_overlay_names_its_own_images_and_one_issuer(rendered: Rendered) -> None:
    objects = rendered[EXAMPLE]
    images = {
        container["image"]
        for one in objects
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {
        f"registry.example.com/tokenward/webhook@sha256:{'1' * 64}",
        f"registry.example.com/tokenward/authserver@sha256:{'2' * 64}",
    }
    texts = [
        named(objects, "ConfigMap", name)["data"][file]
        for name, file in (
            ("tokenward-authserver", "authserver.yaml"),
            ("tokenward-webhook", "webhook.yaml"),
        )
    ]
    issuers = {yaml.safe_load(text)["issuer"] for text in texts}
    assert issuers == {"https://auth.example.com/tokenward"}


def test_the_example_overlays_resource_is_the_one_of_the_example_server(
    rendered: Rendered, tmp_path: Path
) -> None:
    (resource,) = authserver_of(rendered[EXAMPLE], tmp_path).resources
    server = named(rendered["example"], "Deployment", "github-mcp")
    annotations = server["spec"]["template"]["metadata"]["annotations"]
    assert resource.resource == annotations["tokenward.dev/resource"]
    assert resource.workload.namespace == server["metadata"]["namespace"]
    assert resource.workload.name == server["metadata"]["name"]


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize(
    ("page", "kind", "count"),
    [("install.md", "reachable", 3), ("run-maintenance-commands.md", "job", 2)],
)
def test_every_manifest_of_a_page_passes_its_schema(
    page: str, kind: str, count: int, version: str
) -> None:
    found = documented(page, kind)
    assert len(found) == count
    assert [fault for one in found for fault in faults(one, version)] == []


def test_ingress_and_route_lead_every_path_to_the_public_service(rendered: Rendered) -> None:
    ingress, route, _ = documented("install.md", "reachable")
    service = named(rendered[EXAMPLE], "Service", "tokenward-authserver")
    (port,) = service["spec"]["ports"]
    (rule,) = ingress["spec"]["rules"]
    prefixes = {path["path"] for path in rule["http"]["paths"]}
    for path in rule["http"]["paths"]:
        assert path["backend"]["service"] == {
            "name": service["metadata"]["name"],
            "port": {"name": port["name"]},
        }
    (routed,) = route["spec"]["rules"]
    assert {match["path"]["value"] for match in routed["matches"]} == prefixes
    assert routed["backendRefs"] == [{"name": service["metadata"]["name"], "port": port["port"]}]
    issuer = "https://auth.example.com/tokenward"
    for name in (discovery.OAUTH, discovery.OPENID):
        for path in discovery.well_known_paths(issuer, name):
            assert any(path.startswith(f"{prefix}/") for prefix in prefixes)


def test_a_jobs_pod_differs_from_the_authservers_in_its_command_only(rendered: Rendered) -> None:
    """Same label, identity, mounts and restrictions; never ready, so that no Service selects it."""
    for job in documented("run-maintenance-commands.md", "job"):
        template = job["spec"]["template"]
        overlay = "base" if job["metadata"]["name"] == "tokenward-restored" else EXAMPLE
        own = named(rendered[overlay], "Deployment", "tokenward-authserver")["spec"]["template"]
        assert template["metadata"]["labels"].items() <= own["metadata"]["labels"].items()
        for field in ("serviceAccountName", "automountServiceAccountToken"):
            assert template["spec"][field] == own["spec"][field]
        (container,), (theirs,) = template["spec"]["containers"], own["spec"]["containers"]
        for field in ("volumeMounts", "securityContext", "resources"):
            assert container[field] == theirs[field]
        by_name = {volume["name"]: volume for volume in own["spec"]["volumes"]}
        assert {volume["name"]: volume for volume in template["spec"]["volumes"]} == by_name
        assert container["readinessProbe"] == {"exec": {"command": ["false"]}}


def test_the_pages_commands_run(tmp_path: Path) -> None:
    """Those of a pod and those of the Jobs, on a configuration of their own."""
    write_material(tmp_path, *(CertificateAuthority.create(name) for name in ("one", "two")))
    members = configuration_of(tmp_path, "http://127.0.0.1:1", "http://127.0.0.1:2")
    members["storage"] = {"url": f"sqlite://{tmp_path}/tokenward.db"}
    (tmp_path / "authserver.yaml").write_text(yaml.safe_dump(members))
    page = (HOW_TO / "run-maintenance-commands.md").read_text()
    in_a_pod = re.findall(r"^kubectl .* exec deploy/tokenward-authserver -- (.*)$", page, re.M)
    jobs = documented("run-maintenance-commands.md", "job")
    commands = [shlex.split(command) for command in in_a_pod]
    for job in jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        commands.append(["python", "-m", "authserver", *container["args"]])
    assert len(commands) == 4
    for program, *arguments in commands:
        assert program == "python"
        own = [argument.replace("/etc/tokenward", str(tmp_path)) for argument in arguments]
        done = subprocess.run([sys.executable, *own], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_pages_command_makes_a_secret_of_a_folder(tmp_path: Path) -> None:
    page = (HOW_TO / "run-maintenance-commands.md").read_text()
    (command,) = re.findall(r"^kubectl (.* create secret .*) \| kubectl apply -f -$", page, re.M)
    make_keys(tmp_path)
    done = subprocess.run(
        [kubectl(), *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    made = yaml.safe_load(done.stdout)
    assert made["metadata"] == {
        "name": "tokenward-authserver-keys",
        "namespace": "tokenward-system",
    }
    assert set(made["data"]) == {file.name for file in (tmp_path / "keys").iterdir()}
