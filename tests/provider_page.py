"""`python -m tests.provider_page`: makes `docs/reference/providers.md` of the providers' data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from authserver.config.providers.catalog import PROVIDERS
from authserver.config.providers.shape import Provider, Refresh

FILE: Final = Path(__file__).resolve().parents[1] / "docs/reference/providers.md"
_SAYS_NOTHING: Final = "not documented"
_HEAD: Final = """\
# Providers

What `preset: NAME` of an [upstream](configuration.md) stands for. Each entry names the pages of the
provider that were read, and the day. "Not documented" means that these pages do not say. This page
is made of the data in `authserver/config/providers/` by `python -m tests.provider_page`.

What you write in the configuration wins over a preset. `generic` knows nothing. No preset was tried
at the provider itself: each meets a [fake](../../demo/upstream/dialects/table.py) that behaves as
these pages say.

| preset | provider | new refresh token | a spent one | one revocation ends | Attach |
|---|---|---|---|---|---|
"""


def _row(name: str, provider: Provider) -> str:
    refresh = provider.refresh
    cells = (
        f"[`{name}`](#{name})",
        provider.settings["displayName"],
        refresh.rotation,
        _spent(refresh),
        "all grants of the user" if refresh.revocation_ends_grant else "that sign-in at most",
        ", ".join(f"`{api['name']}`" for api in provider.apis) or "none",
    )
    return f"| {' | '.join(cells)} |"


def _spent(refresh: Refresh) -> str:
    if refresh.rotation == "no refresh tokens":
        return "-"
    if not refresh.spends:
        return "stays valid"
    return f"is taken for {refresh.reuse_grace}" if refresh.reuse_grace else "may be refused"


def _section(name: str, provider: Provider) -> Iterator[str]:
    settings = provider.members()
    yield f"\n## {name}\n"
    yield f"{settings['displayName']}, `type: {settings['type']}`.\n"
    yield "| | |\n|---|---|"
    for label, text in (*_identity(provider), *_at_refresh(provider.refresh)):
        yield f"| {label} | {text or _SAYS_NOTHING} |"
    yield ""
    for note in provider.notes:
        yield f"- {note}"
    if provider.notes:
        yield ""
    if words := settings.get("scopeDescriptions"):
        yield "Scopes, in the words of the consent page:\n"
        yield from (f"- `{scope}`: {text}" for scope, text in words.items())
        yield ""
    yield "Read:\n"
    yield from (f"- <{source.address}>, on {source.read_on}" for source in provider.sources)


def _identity(provider: Provider) -> Iterator[tuple[str, str]]:
    settings = provider.members()
    if settings["type"] == "oidc":
        issuer = settings.get("issuer")
        yield "issuer", f"`{issuer}`" if issuer else f"yours: `{provider.issuer_form}`"
    else:
        for label, member in (
            ("authorization endpoint", "authorizationEndpoint"),
            ("token endpoint", "tokenEndpoint"),
            ("refresh endpoint", "refreshEndpoint"),
            ("revocation endpoint", "revocationEndpoint"),
        ):
            if member in settings:
                yield label, f"`{settings[member]}`"
    yield "who the user is", provider.subject
    yield "PKCE", provider.pkce
    yield "client authentication", _authentication(settings)
    yield "scopes asked for", _codes(settings.get("scopes", ())) or "none"
    yield "scopes are separated by", _separators(settings)
    if headers := settings.get("requestHeaders"):
        yield "headers that we send", _codes(f"{key}: {text}" for key, text in headers.items())
    fixed = [api["baseUrl"] for api in provider.apis if "baseUrl" in api]
    bases = _codes([*dict.fromkeys(fixed), *provider.api_base_urls])
    told = [_told(api["baseUrlFrom"]) for api in provider.apis if "baseUrlFrom" in api]
    yield "API base URLs", ", ".join(filter(None, (bases, *told))) or "of the operator"
    if provider.api_headers:
        yield "headers that its APIs want", _codes(provider.api_headers)


def _told(base_url_from: dict[str, Any]) -> str:
    hosts = _codes(base_url_from["hosts"])
    return f"of the account: `{base_url_from['member']}` of the token answer, at {hosts}"


def _authentication(settings: dict[str, Any]) -> str:
    how = settings.get("clientAuthentication")
    if how is None:
        how = "as discovery says" if settings["type"] == "oidc" else "body"
    return f"{how}, in a {settings.get('requestFormat', 'form')}"


def _separators(settings: dict[str, Any]) -> str:
    names = {" ": "a space", ",": "a comma"}
    asked = names[settings.get("scopeSeparator", " ")]
    answered = names[settings.get("answeredScopeSeparator", " ")]
    return asked if asked == answered else f"{asked}; in answers by {answered}"


def _at_refresh(refresh: Refresh) -> Iterator[tuple[str, str]]:
    yield "new refresh token", refresh.rotation
    yield "access token lasts", refresh.access_lasts
    if refresh.rotation == "no refresh tokens":
        return
    yield "refresh token lasts", refresh.refresh_lasts
    yield "a spent refresh token is taken again for", refresh.reuse_grace
    yield "a spent one that comes later ends the grant", _yes_no(refresh.reuse_ends_grant)
    yield "one revocation ends all grants of the user", _yes_no(refresh.revocation_ends_grant)
    yield "a repeated refresh gets", refresh.repeated
    yield "a late refresh gets", refresh.late
    if refresh.dead_grant:
        yield "further words for an ended grant", _codes(refresh.dead_grant)


def _yes_no(fact: bool | None) -> str:
    return "" if fact is None else "yes" if fact else "no"


def _codes(texts: Any) -> str:
    return ", ".join(f"`{text}`" for text in texts)


def render() -> str:
    rows = "\n".join(_row(name, provider) for name, provider in PROVIDERS.items())
    sections = (line for name, one in PROVIDERS.items() for line in _section(name, one))
    return _HEAD + rows + "\n" + "\n".join(sections) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), "utf-8")
