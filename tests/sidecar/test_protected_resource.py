"""The RFC 9728 document and the challenge that points at it."""

from pathlib import Path

import pytest

from sidecar.protected_resource import ProtectedResource
from tests.sidecar.harness import Authorities, Harness, harness

ROOT = "/.well-known/oauth-protected-resource"
NO_CALL = {"Authorization": None, "X-Tokenward": None, "Content-Type": None}


@pytest.mark.parametrize("path", [ROOT, f"{ROOT}/mcp", f"{ROOT}/mcp?x=1"])
async def test_the_document_is_there_for_everyone_in_the_pod(r: Harness, path: str) -> None:
    reply = await r.ask(method="GET", path=path, headers=NO_CALL)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json == {
        "resource": "https://github-mcp.example.com/mcp",
        "authorization_servers": ["https://auth.example.com"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mcp"],
    }


async def test_head_is_answered_without_a_body(r: Harness) -> None:
    url = f"http://127.0.0.1:{r.port}{ROOT}"
    async with r.http.head(url) as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""


@pytest.mark.parametrize("path", [f"{ROOT}/", f"{ROOT}/other", f"{ROOT}/mcp/", "/.well-known/x"])
async def test_documents_of_other_resources_are_not_there(r: Harness, path: str) -> None:
    assert (await r.ask(method="GET", path=path, headers=NO_CALL)).status == 404


async def test_it_is_not_for_pages_in_a_browser(r: Harness) -> None:
    reply = await r.ask(method="GET", path=ROOT, headers=NO_CALL | {"Host": "evil.example"})
    assert reply.status == 403


async def test_it_is_read_only(r: Harness) -> None:
    assert (await r.ask(method="POST", path=ROOT)).status == 404


async def test_without_a_resource_there_is_no_document_and_the_challenge_stands_alone(
    tmp_path: Path, authorities: Authorities
) -> None:
    async with harness(tmp_path, authorities, RESOURCE="", ISSUER="", SCOPES="") as r:
        assert (await r.ask(method="GET", path=ROOT, headers=NO_CALL)).status == 404
        assert (await r.ask(headers=NO_CALL | {"X-Tokenward": "1"})).status == 401
        reply = await r.ask(jwt="no-jwt")
        assert reply.headers["WWW-Authenticate"] == (
            'Bearer error="invalid_token", error_description="The access token is not accepted."'
        )


@pytest.mark.parametrize(
    ("resource", "path", "metadata_url"),
    [
        ("https://a.example", ROOT, f"https://a.example{ROOT}"),
        ("https://a.example/", ROOT, f"https://a.example{ROOT}"),
        ("https://a.example:8443/x/y", f"{ROOT}/x/y", f"https://a.example:8443{ROOT}/x/y"),
        ("https://a.example/x/", f"{ROOT}/x/", f"https://a.example{ROOT}/x/"),
        ("https://a.example/x?y=1", f"{ROOT}/x", f"https://a.example{ROOT}/x?y=1"),
    ],
)
def test_the_well_known_part_goes_between_host_and_path(
    resource: str, path: str, metadata_url: str
) -> None:
    protected = ProtectedResource(resource, "https://auth.example.com", ())
    assert protected.paths == (ROOT, path)
    assert protected.challenge() == f'Bearer resource_metadata="{metadata_url}"'
    assert b'"scopes_supported"' not in protected.document
