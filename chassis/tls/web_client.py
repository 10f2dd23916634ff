"""TLS towards servers of the web: the CAs of this system, or those of one bundle and no others."""

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# Where systems keep all their CAs in one file: Debian and Alpine, Fedora, SUSE, Alpine again.
SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class NoAuthorities(Exception):
    """There is no CA to check a server against; the text says why."""


def web_client_context(
    bundle: str | None, system_bundles: Iterable[str] = SYSTEM_BUNDLES
) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 to a named host, HTTP/1.1 only. Raises NoAuthorities.

    `bundle` is PEM; with None the first of `system_bundles` that is there counts. The environment
    is not asked: whoever sets it must not choose whom we trust. Reading a system's bundle takes
    some 20 ms: not for an event loop.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        if bundle is not None:
            context.load_verify_locations(cadata=bundle)
        else:
            context.load_verify_locations(cafile=_system_bundle(system_bundles))
    except (ssl.SSLError, OSError) as error:
        raise NoAuthorities("the CA bundle cannot be read") from error
    return context


def _system_bundle(candidates: Iterable[str]) -> str:
    for path in candidates:
        if Path(path).is_file():
            return path
    raise NoAuthorities("this system has no CA bundle")
