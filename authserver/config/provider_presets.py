"""An upstream with `preset: NAME` starts from what is known of that provider.

Members are spelt as in the configuration file, and what the operator writes wins. A preset
without `issuer` needs the operator's own (Okta, Auth0: the domain; Microsoft: the tenant).
"""

from collections.abc import Mapping
from typing import Any, Final

from authserver.config.preset_apis import expanded_apis
from authserver.config.providers.catalog import PROVIDERS
from authserver.config.providers.shape import OPENID_SCOPES

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    **{name: provider.members() for name, provider in PROVIDERS.items()},
    # Nothing is known: `type` and everything else is the operator's.
    "generic": {},
}


def expanded(upstream: Mapping[str, Any]) -> dict[str, Any]:
    """An upstream of the configuration file with its preset filled in.

    The operator's `deadGrantErrors` come beside those of the preset. The operator's words for a
    scope win over the preset's, scope by scope. Their APIs start from the preset's, name by name.
    """
    preset = upstream.get("preset")
    known = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    merged = {**known, **upstream}
    errors = merged.get("deadGrantErrors")
    if isinstance(errors, list):
        merged["deadGrantErrors"] = [*known.get("deadGrantErrors", []), *errors]
    if isinstance(preset, str):
        merged["apis"] = expanded_apis(preset, upstream.get("apis"))
    words = merged.get("scopeDescriptions", {})
    if isinstance(words, Mapping):
        base = OPENID_SCOPES if merged.get("type") == "oidc" else {}
        merged["scopeDescriptions"] = {**base, **known.get("scopeDescriptions", {}), **words}
    return merged
