"""The listeners' certificates, keys and CAs: checked at the start, followed while we run."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from authserver.config.listeners import InternalListener, Tls
from authserver.config.settings import Settings
from authserver.internal import client_ca
from authserver.values import Value
from chassis import process
from chassis.logs import Log
from chassis.tls import contexts, reload, self_handshake

_log = Log("listener_tls")

INTERNAL: Final = "listeners.internal"
PUBLIC: Final = "listeners.public.tls"

OnReload = Callable[[str, self_handshake.Certificate | None], None]
"""Hears whose files changed, and the certificate that took over, or None where they are no good."""


class Material(Value, frozen=True):
    """What one listener's TLS is made of; `place` is where it stands in the configuration."""

    place: str
    build: Callable[[], tuple[ssl.SSLContext, self_handshake.Certificate]]
    files: Sequence[Path]


def faults(settings: Settings) -> list[process.ConfigProblem]:
    """Every listener's certificate, key or CA bundle that cannot be used."""
    problems = []
    for material in _materials(settings):
        try:
            material.build()
        except contexts.CredentialFault as fault:
            problems.append(process.ConfigProblem(material.place, str(fault)))
    return problems


async def followed(
    stack: AsyncExitStack,
    settings: Settings,
    on_reload: OnReload,
    on_expired_cas: Callable[[int], None] = lambda _: None,
    on_certificate: Callable[[str, self_handshake.Certificate], None] = lambda *_: None,
) -> dict[str, ssl.SSLContext]:
    """The contexts by their place; they follow their files for as long as `stack` is open.

    `on_certificate` hears of those that are used from the start.
    """
    contexts: dict[str, ssl.SSLContext] = {}
    for material in _materials(settings, on_expired_cas):
        following = reloading(material, on_reload)
        on_certificate(material.place, following.certificate)
        await stack.enter_async_context(process.background(following.watch()))
        contexts[material.place] = following.context
    return contexts


def reloading(material: Material, on_reload: OnReload) -> reload.ContextReloader:
    """A context that follows its files when polled. Raises ConfigurationError."""

    def heard(taken: bool) -> None:
        on_reload(material.place, made.certificate if taken else None)

    try:
        made = reload.ContextReloader(
            material.place, material.build, material.files, on_reload=heard
        )
    except contexts.CredentialFault as fault:  # changed since it was checked
        raise process.ConfigurationError(
            [process.ConfigProblem(material.place, str(fault))]
        ) from None
    return made


def _materials(
    settings: Settings, on_expired_cas: Callable[[int], None] | None = None
) -> Iterator[Material]:
    yield internal_material(settings.listeners.internal, on_expired_cas)
    if settings.listeners.public.tls is not None:
        yield _public_material(settings.listeners.public.tls)


def internal_material(
    listener: InternalListener, on_expired_cas: Callable[[int], None] | None = None
) -> Material:
    """mTLS with workloads of the configured CAs, each of which is judged first.

    `on_expired_cas` gets how many CAs of the bundle in use have expired and are left out; without
    it, as in a check at the start, nothing is reported.
    """
    pair = contexts.KeyPair(listener.cert_file, listener.key_file)

    def report_expired(fingerprints: tuple[str, ...]) -> None:
        if on_expired_cas is None:
            return
        on_expired_cas(len(fingerprints))
        if fingerprints:
            file = str(listener.client_ca_file)
            _log.warning("expired_cas_left_out", file=file, sha256=fingerprints)

    def build() -> tuple[ssl.SSLContext, self_handshake.Certificate]:
        context = contexts.mutual_server_context(
            pair, listener.client_ca_file, _report_refused, client_ca.problem_of, report_expired
        )
        return context, self_handshake.verify_key_pair(pair, as_client=False)

    return Material(INTERNAL, build, (pair.certificate, pair.key, listener.client_ca_file))


def own_names(listener: InternalListener) -> Sequence[str]:
    """The DNS names by which sidecars know us. Raises ConfigurationError."""
    pair = contexts.KeyPair(listener.cert_file, listener.key_file)
    try:
        return self_handshake.verify_key_pair(pair, as_client=False).dns_names
    except contexts.CredentialFault as fault:
        raise process.ConfigurationError([process.ConfigProblem(INTERNAL, str(fault))]) from None


def _public_material(tls: Tls) -> Material:
    pair = contexts.KeyPair(tls.cert_file, tls.key_file)

    def build() -> tuple[ssl.SSLContext, self_handshake.Certificate]:
        return contexts.server_context(pair), self_handshake.verify_key_pair(pair, as_client=False)

    return Material(PUBLIC, build, (pair.certificate, pair.key))


def _report_refused(refused: ssl.SSLError) -> None:
    """TLS 1.3 tells the peer nothing, so whoever operates this reads it here."""
    _log.warning(
        "handshake_refused", reason=getattr(refused, "verify_message", None) or refused.reason
    )
