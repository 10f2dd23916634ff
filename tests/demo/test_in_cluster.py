"""The demo inside a cluster: its overlay names what its programs name, and its router routes."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.cluster import __main__ as driver
from demo.cluster.material import material, namespaces
from demo.cluster.places import Places
from demo.cluster.tls_router import Router
from demo.pki import CertificateAuthority, write_credential
from tests.manifests.objects import find
from tests.manifests.rendering import render

Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    workspace = tmp_path_factory.mktemp("demo")
    return render("overlays/demo", workspace) + render("overlays/demo/workloads", workspace)


def test_the_overlay_has_the_urls_that_the_client_uses(overlay: Objects) -> None:
    places = Places()
    spec = find(overlay, "MCPAuthServer", "main")["spec"]
    assert spec["issuer"] == places.issuer
    assert [one["issuer"] for one in spec["upstreams"]] == [places.upstream]
    for server in places.servers:
        assert find(overlay, "MCPServerAuth", server.name)["spec"]["resource"] == server.resource


def test_every_host_of_the_demo_has_a_route_and_a_service_that_leads_to_the_router(
    overlay: Objects,
) -> None:
    container = find(overlay, "Deployment", "router")["spec"]["template"]["spec"]["containers"][0]
    routes = [one.split("=")[1] for one in container["args"] if one.startswith("--route=")]
    assert sorted(routes) == sorted(Places().hosts)
    services = {
        f"{one['metadata']['name']}.{one['metadata']['namespace']}.svc.cluster.local"
        for one in overlay
        if one["kind"] == "Service" and one["spec"].get("type") == "ExternalName"
    }
    assert services == set(Places().hosts)


def test_what_the_overlay_mounts_is_in_the_material(overlay: Objects) -> None:
    made = {(one["kind"], one["metadata"]["namespace"], one["metadata"]["name"])
            for one in material(Places())}  # fmt: skip
    spaces = {one["metadata"]["name"] for one in namespaces()}
    assert {namespace for _, namespace, _ in made} <= spaces
    for workload in (one for one in overlay if one["kind"] in ("Deployment", "Job")):
        namespace = workload["metadata"]["namespace"]
        if namespace == "tokenward-system":
            continue  # the controller's and the webhook's are the controller's to make
        for volume in workload["spec"]["template"]["spec"].get("volumes", []):
            if "secret" in volume:
                assert ("Secret", namespace, volume["secret"]["secretName"]) in made
            if "configMap" in volume:
                assert ("ConfigMap", namespace, volume["configMap"]["name"]) in made
    assert ("Secret", "tokenward-system", "acme-client") in made


def test_without_the_sidecars_image_nothing_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOKENWARD_SIDECAR_IMAGE", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/dev/null")
    monkeypatch.setattr("sys.argv", ["demo.cluster"])
    assert driver.main() == 1
    assert "TOKENWARD_SIDECAR_IMAGE" in capsys.readouterr().err


@asynccontextmanager
async def routed(
    folder: Path, authority: CertificateAuthority
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A router with the hosts `one` and `two`; its port, and what `one` has received."""
    received: list[bytes] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readline())
        writer.write(b"from one\n")
        writer.close()

    write_credential(folder, authority.issue_server(dns=("one.test", "two.test", "three.test")))
    backend = await asyncio.start_server(one, "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    router = Router({"one.test": ("127.0.0.1", port), "two.test": ("127.0.0.1", 1)})
    server = await asyncio.start_server(router.serve, "127.0.0.1", 0, ssl=router.tls(folder))
    async with backend, server:
        yield server.sockets[0].getsockname()[1], received


@pytest.mark.parametrize(
    ("name", "answer"), [("one.test", b"from one\n"), ("two.test", b""), ("three.test", None)]
)
async def test_the_router_goes_by_the_name_in_the_handshake(
    name: str, answer: bytes | None, tmp_path: Path
) -> None:
    authority = CertificateAuthority.create("tests")
    trusted = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    async with routed(tmp_path, authority) as (port, received):
        if answer is None:
            with pytest.raises(OSError):  # noqa: PT011 - an alert, or a reset in its place
                await asyncio.open_connection("127.0.0.1", port, ssl=trusted, server_hostname=name)
            return
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusted, server_hostname=name
        )
        writer.write(b"hello\n")
        assert await reader.readline() == answer
        assert received == ([b"hello\n"] if answer else [])
        writer.close()
