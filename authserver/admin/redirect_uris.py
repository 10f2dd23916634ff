"""The redirect URI of each upstream, for an operator to compare with the provider's console."""

from collections.abc import Iterator

from authserver.config.exchanged_upstreams import ExchangedUpstream
from authserver.config.settings import Settings
from authserver.oauth.redirect_uris import callback_uri
from authserver.values import Value


class ToRegister(Value, frozen=True):
    """What an upstream must know: our client there, and its redirect URI, byte for byte."""

    upstream: str
    client_id: str
    redirect_uri: str


def to_register(settings: Settings) -> Iterator[ToRegister]:
    """One for each upstream at which users sign in."""
    for upstream in settings.upstreams:
        if not isinstance(upstream, ExchangedUpstream):
            uri = callback_uri(settings.issuer, upstream.name)
            yield ToRegister(upstream.name, upstream.client_id, uri)
