"""What every provider's data must hold: sources, dates, words, and the page that is made of it."""

import re
from datetime import date
from urllib.parse import urlsplit

import pytest

from authserver.config.provider_presets import PRESETS
from authserver.config.providers.catalog import PROVIDERS
from authserver.config.providers.shape import Provider
from tests import provider_page

EACH = pytest.mark.parametrize(("name", "provider"), PROVIDERS.items(), ids=list(PROVIDERS))


def test_the_page_of_providers_is_made_of_the_data() -> None:
    assert provider_page.FILE.read_text("utf-8") == provider_page.render(), (
        "run `python -m tests.provider_page`"
    )


@EACH
def test_a_provider_has_sources_that_were_read(name: str, provider: Provider) -> None:
    assert provider.sources
    for source in provider.sources:
        parts = urlsplit(source.address)
        assert (parts.scheme, parts.query) == ("https", "")
        assert date(2026, 1, 1) <= date.fromisoformat(source.read_on)
    addresses = [source.address for source in provider.sources]
    assert len(addresses) == len(set(addresses))


@EACH
def test_a_provider_says_how_it_is_known_and_how_it_refreshes(
    name: str, provider: Provider
) -> None:
    settings = provider.members()
    assert settings["displayName"]
    assert provider.subject
    assert settings["type"] in ("oidc", "oauth2")
    if settings["type"] == "oidc":
        assert ("issuer" in settings) != bool(provider.issuer_form)
        assert "openid" in settings["scopes"]
    refresh = provider.refresh
    if refresh.rotation == "never":
        assert not refresh.spends
    if refresh.rotation == "no refresh tokens":
        assert [refresh.repeated, refresh.late, refresh.refresh_lasts] == ["", "", ""]
    # Words for a scope begin as the consent page's other lines do, and end without a full stop.
    for text in settings.get("scopeDescriptions", {}).values():
        assert re.fullmatch(r"[A-Z].*[^.]", text), text


def test_each_preset_but_the_empty_one_is_described() -> None:
    assert set(PRESETS) - set(PROVIDERS) == {"generic"}
    assert list(PROVIDERS) == sorted(PROVIDERS)
