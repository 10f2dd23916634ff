"""Other people's SDKs at the Attach door, with nothing changed but their base URL.

The APIs accept their own tokens only, over TLS; the policy is the one of our presets.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from authserver.config.preset_apis import PRESET_APIS, expanded_apis
from authserver.config.upstream_apis import ApiSettings
from demo.pki import CertificateAuthority
from tests.fakes.provider_apis import DriveApi, GitHubApi
from tests.interop.environments import HERE, node_packages, python_of
from tests.sidecar.attach.harness import TOKEN, Attached, Called, attached
from tests.sidecar.harness import JWT, Authorities

pytestmark = pytest.mark.timeout(400)

CONTENT = b"what the program wrote"
PROGRAMS = HERE / "sdks"


@pytest.fixture
async def a(tmp_path: Path) -> AsyncIterator[Attached]:
    authority = CertificateAuthority.create("apis")
    async with attached(tmp_path, Authorities.create(), authority) as running:
        yield running


def described(a: Attached, preset: str) -> list[dict[str, Any]]:
    """A preset's APIs, at the address of our fake."""
    ca = a.api.authority.certificate_pem.decode()
    return [
        ApiSettings.model_validate({**api, "baseUrl": a.api.base_url}).answered(ca)
        for api in PRESET_APIS[preset]
    ]


def serve_github(a: Attached) -> GitHubApi:
    github = GitHubApi(lambda: a.api.base_url)

    async def handle(_: web.BaseRequest, called: Called) -> web.StreamResponse:
        return github.answer(called.method, called.target, called.body)

    a.api.handle = handle
    a.always(apis=described(a, "github"))
    return github


def serve_drive(a: Attached) -> DriveApi:
    drive = DriveApi(lambda: a.api.base_url)

    async def handle(request: web.BaseRequest, called: Called) -> web.StreamResponse:
        content_range = request.headers.get("Content-Range")
        return drive.answer(called.method, called.target, called.body, content_range)

    a.api.handle = handle
    a.always(upstream="google", apis=described(a, "google"))
    return drive


async def run(*command: str | Path) -> Any:
    """What a program prints, as JSON."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, said = await process.communicate()
    assert process.returncode == 0, said.decode()[-3000:]
    return json.loads(printed)


def check_calls(a: Attached) -> None:
    """Every call had the token; the JWT and anything but the policy's paths reached nobody."""
    assert len(a.api.called) >= 5
    for called in a.api.called:
        assert called.values("authorization") == [f"Bearer {TOKEN}"]
        assert JWT not in str(called)
    assert a.counted("ok") == len(a.api.called)
    assert a.counted("destination_not_allowed") == 0


async def run_node(program: str, *arguments: str) -> Any:
    packages = await asyncio.to_thread(node_packages, "node-sdks")
    copy = packages / program  # programs find packages from where they lie
    copy.write_bytes((PROGRAMS / program).read_bytes())
    return await run("node", copy, *arguments)


@pytest.mark.interop
async def test_pygithub_pages_follows_a_renaming_and_writes_a_file(a: Attached) -> None:
    github = serve_github(a)
    python = await asyncio.to_thread(python_of, "sdks")
    assert await run(python, PROGRAMS / "pygithub_program.py", a.url, JWT) == {
        "names": ["repository-1", "repository-2", "repository-3"],
        "renamed": "octo/new-name",
        "issues": ["the only one"],
        "written": "docs/notes.txt",
    }
    assert github.files == {"docs/notes.txt": CONTENT}
    check_calls(a)


@pytest.mark.interop
async def test_octokit_pages_follows_a_renaming_and_writes_a_file(a: Attached) -> None:
    github = serve_github(a)
    assert await run_node("octokit_program.mjs", a.url, JWT) == {
        "names": ["repository-1", "repository-2", "repository-3"],
        "renamed": "octo/new-name",
        "written": "docs/notes.txt",
    }
    assert github.files == {"docs/notes.txt": CONTENT}
    check_calls(a)


@pytest.mark.interop
async def test_googles_python_client_pages_and_uploads_at_once_and_in_pieces(a: Attached) -> None:
    drive = serve_drive(a)
    python = await asyncio.to_thread(python_of, "sdks")
    root = f"http://127.0.0.1:{a.r.port}/upstream/google/drive/"
    assert await run(python, PROGRAMS / "drive_program.py", root, JWT) == {
        "names": ["file-1", "file-2", "file-3"],
        "whole": "at-once",
        "in pieces": "in-pieces",
    }
    assert b"x" * 300_000 in drive.uploaded["at-once"]
    assert drive.uploaded["in-pieces"] == b"x" * 300_000
    check_calls(a)


@pytest.mark.interop
async def test_googles_node_client_pages_and_uploads(a: Attached) -> None:
    drive = serve_drive(a)
    root = f"http://127.0.0.1:{a.r.port}/upstream/google/drive/"
    assert await run_node("drive_program.mjs", root, JWT) == {
        "names": ["file-1", "file-2", "file-3"],
        "whole": "at-once",
    }
    assert b"x" * 300_000 in drive.uploaded["at-once"]
    assert len(a.api.called) == 4
    assert not [called for called in a.api.called if JWT in str(called)]


PAGE = HERE.parents[1] / "docs/how-to/call-an-api.md"
SHOWN = {
    "python pygithub": "pygithub_program.py",
    "js octokit": "octokit_program.mjs",
    "python drive": "drive_program.py",
    "js drive": "drive_program.mjs",
}


@pytest.mark.parametrize("block", SHOWN)
def test_the_how_to_shows_lines_of_the_programs_that_run_here(block: str) -> None:
    shown = re.findall(rf"```{block}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert shown
    program = (PROGRAMS / SHOWN[block]).read_text("utf-8").splitlines()
    assert [line for text in shown for line in text.splitlines() if line not in program] == []


def test_the_how_tos_configuration_narrows_the_preset() -> None:
    text, of_accounts = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    upstream = yaml.safe_load(text)["upstreams"][0]
    apis = expanded_apis(upstream["preset"], upstream["apis"])
    assert isinstance(apis, list)
    (api,) = [ApiSettings.model_validate(one) for one in apis]
    assert (api.methods, api.path_prefixes) == (("GET", "HEAD"), ("/repos", "/user"))
    assert api.base_url == "https://api.github.com"
    (elsewhere,) = map(ApiSettings.model_validate, yaml.safe_load(of_accounts)["apis"])
    assert elsewhere.base_url_from is not None
    origins = [("api_domain", "https://acme.pipedrive.com")]
    assert elsewhere.base_url_from.base_url(origins) == "https://acme.pipedrive.com"
