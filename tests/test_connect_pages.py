"""The pages that connect a provider: their configuration loads, their log events exist."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from authserver.config.loader import load
from authserver.config.provider_presets import PRESETS
from authserver.config.settings import Settings
from authserver.internal.denial_reasons import DenialReason
from chassis.process import ConfigurationError
from demo.pki import CertificateAuthority
from tests.support.deployment import configuration_of, write_material

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs/how-to").glob("connect-*.md"))
_KEYS = "/var/run/tokenward/keys/"


def _ids(page: Path) -> str:
    return page.stem


def snippets(page: Path) -> list[dict[str, Any]]:
    """The page's parts of a configuration, one for each block."""
    blocks = re.findall(r"^```yaml upstream\n(.*?)^```", page.read_text(), re.M | re.S)
    return [yaml.safe_load(block) for block in blocks]


def issuer_of(page: Path) -> str:
    (issuer,) = re.findall(r"the issuer is `([^`]+)`", page.read_text())
    return str(issuer)


def loaded(page: Path, snippet: dict[str, Any], folder: Path) -> Settings:
    """The snippet in an otherwise complete configuration. Raises ConfigurationError."""
    write_material(folder, *(CertificateAuthority.create(name) for name in ("one", "two")))
    members = configuration_of(folder, issuer_of(page), "https://unused.example.com") | snippet
    listeners: Any = members["listeners"]
    listeners["public"]["behindTLSProxy"] = True
    text = yaml.safe_dump(members).replace(_KEYS, f"{folder}/")
    for upstream in snippet["upstreams"]:
        name = upstream["clientSecretFile"].removeprefix(_KEYS)
        (folder / name).write_text("secret\n")
    (folder / "authserver.yaml").write_text(text)
    return load(folder / "authserver.yaml")


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_every_configuration_on_the_page_loads_and_has_the_pages_callback_url(
    page: Path, tmp_path: Path
) -> None:
    (callback,) = re.findall(r"^```text\n(\S+)\n```", page.read_text(), re.MULTILINE)
    assert snippets(page)
    for number, snippet in enumerate(snippets(page)):
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = loaded(page, snippet, folder)
        (upstream,) = settings.upstreams
        assert callback == f"{settings.issuer}/oauth/callback/{quote(upstream.name, safe='')}"
        assert f"preset `{snippet['upstreams'][0]['preset']}`" in page.read_text() or (
            f"preset is called `{snippet['upstreams'][0]['preset']}`" in page.read_text()
        )


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_the_owner_of_the_pages_resource_may_obtain_a_token(page: Path, tmp_path: Path) -> None:
    """Resource, owner, upstream and `allowedWorkloads` fit, and the page names the same MCP URL."""
    settings = loaded(page, snippets(page)[0], tmp_path)
    (resource,) = settings.resources
    allowed = settings.allowed_workloads
    assert resource.workload.namespace in allowed.namespaces
    assert resource.workload.name in allowed.names
    assert resource.entry().upstreams == (settings.upstreams[0].name,)
    assert f"`{resource.resource}`" in page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_a_fault_in_the_pages_configuration_would_be_found(page: Path, tmp_path: Path) -> None:
    snippet = snippets(page)[0]
    snippet["upstreams"][0]["redirectUri"] = "https://auth.example.com"
    with pytest.raises(ConfigurationError) as refused:
        loaded(page, snippet, tmp_path)
    assert [fault.path for fault in refused.value.faults] == ["upstreams[0].redirectUri"]


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_every_event_and_reason_that_the_page_names_is_one_of_the_authservers(page: Path) -> None:
    source = "\n".join(file.read_text() for file in sorted((ROOT / "authserver").rglob("*.py")))
    cells = re.findall(r"^\|[^|]*\| ([^|]*) \|", page.read_text(), re.MULTILINE)
    events = {event for cell in cells for event in re.findall(r"^`(\w+)`", cell)}
    reasons = {reason for cell in cells for reason in re.findall(r"`reason: (\w+)`", cell)}
    assert "upstream_sign_in_failed" in events
    assert "upstream_refused" in reasons
    assert {event for event in events if f'"{event}"' not in source} == set()
    unknown = {reason for reason in reasons if f'"{reason}"' not in source}
    assert unknown <= {"callback_other_error"}  # put together at the call
    assert 'f"callback_{' in source
    assert "'other_error'" in source


def test_the_opt_in_pages_configuration_fits_the_github_pages() -> None:
    page = (ROOT / "docs/how-to/opt-in.md").read_text()
    (block,) = re.findall(r"^```yaml authserver\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    github = snippets(ROOT / "docs/how-to/connect-github.md")[0]
    assert yaml.safe_load(block) == {
        name: github[name] for name in ("resources", "allowedWorkloads")
    }


def test_every_reason_and_event_of_the_opt_in_page_exists() -> None:
    page = (ROOT / "docs/how-to/opt-in.md").read_text()
    section = page.partition("## The pod runs and gets no token")[2]
    reasons = re.findall(r"`reason: (\w+)`", section)
    assert len(reasons) == 4
    assert set(reasons) <= set(DenialReason)
    events = re.findall(r"log says `(\w+)`", section)
    assert len(events) == 3
    sidecar = "\n".join(file.read_text() for file in sorted((ROOT / "sidecar").glob("*.py")))
    assert [event for event in events if f'"{event}"' not in sidecar] == []


def test_the_reasons_of_the_page_on_installing_exist() -> None:
    page = (ROOT / "docs/how-to/install.md").read_text()
    reasons = set(re.findall(r"`reason: (\w+)`", page))
    assert reasons == {"not_reached", "proxy_refused"}
    source = (ROOT / "authserver/upstream/http_client.py").read_text()
    assert all(f'"{reason}"' in source for reason in reasons)


def test_each_page_has_its_preset() -> None:
    used = {snippet["upstreams"][0]["preset"] for page in PAGES for snippet in snippets(page)}
    assert used == {"github", "google", "slack", "microsoft"}
    assert used <= set(PRESETS)
