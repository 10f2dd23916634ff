"""Which APIs of a provider Attach may call, filled in where the operator names a preset.

Outside of every preset: GraphQL and batch endpoints, where a method and a path decide nothing,
and endpoints that mint, echo or exchange credentials or lead to a link that is one.
"""

from collections.abc import Mapping
from typing import Any, Final

from authserver.config.providers.catalog import PROVIDERS

PRESET_APIS: Final[Mapping[str, tuple[Mapping[str, Any], ...]]] = {
    name: provider.apis for name, provider in PROVIDERS.items() if provider.apis
}
_BASE_URLS: Final = frozenset({"baseUrl", "baseUrlFrom"})


def expanded_apis(preset: str, written: object) -> object:
    """The APIs of an upstream with its preset's filled in.

    Without `written` (None) they are the preset's. An entry that has the name of one of the
    preset's starts from it, and what the operator writes wins; a list names all there are. A
    written `baseUrl` replaces the `baseUrlFrom` of the preset, and the other way round.
    """
    known = {str(api["name"]): api for api in PRESET_APIS.get(preset, ())}
    if written is None:
        return [dict(api) for api in known.values()]
    if not isinstance(written, list):
        return written
    return [
        {**_without_base_url(known.get(str(api.get("name")), {}), api), **api}
        if isinstance(api, dict)
        else api
        for api in written
    ]


def _without_base_url(known: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's API, without its base URL where the operator says one in either way."""
    says_one = not _BASE_URLS.isdisjoint(written)
    return {name: value for name, value in known.items() if not (says_one and name in _BASE_URLS)}
