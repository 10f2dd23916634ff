"""The files that a configuration names: who may read them, and how long certificates last."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509

from authserver import listener_tls
from authserver.admin.doctor.finding import Finding
from authserver.config.settings import Settings
from authserver.storage.engines.url import SqliteLocation, read_location

# Renewed much earlier where renewal works: most issuers do it after two thirds of the life.
_LEAST_LIFE: Final = 0.1
_SKEW_SECONDS: Final = 60
_HOUR_SECONDS: Final = 3600
_DAY_SECONDS: Final = 24 * _HOUR_SECONDS


def file_findings(settings: Settings, now: float) -> Iterator[Finding]:
    """`now` is Unix time."""
    for place, file in _secrets(settings):
        if _mode(file) & (stat.S_IROTH | stat.S_IWOTH):
            yield Finding(
                "secret_readable_by_all", place, f"{file}: every user of this machine may read it",
                f"chmod o-rwx {file}; in a pod, set defaultMode of the volume",
            )  # fmt: skip
    faults = listener_tls.faults(settings)
    for fault in faults:
        yield Finding(
            "listener_credential", fault.path, fault.problem,
            "issue certificate, key and CA anew; see docs/how-to/install.md",
        )  # fmt: skip
    for place, file in _certificates(settings):
        yield from _validity(place, file, now)
    if not faults:
        yield from _names(settings)


def _secrets(settings: Settings) -> Iterator[tuple[str, Path]]:
    for index, key in enumerate(settings.encryption_keys):
        yield f"encryptionKeys[{index}].file", key.file
    for index, signing in enumerate(settings.signing_keys):
        yield f"signingKeys[{index}].file", signing.file
    for index, upstream in enumerate(settings.upstreams):
        if upstream.client_secret_file is not None:
            yield f"upstreams[{index}].clientSecretFile", upstream.client_secret_file
    yield "listeners.internal.keyFile", settings.listeners.internal.key_file
    if settings.listeners.public.tls is not None:
        yield "listeners.public.tls.keyFile", settings.listeners.public.tls.key_file
    if settings.storage.password_file is not None:
        yield "storage.passwordFile", settings.storage.password_file
    location = read_location(settings.storage.url)
    if isinstance(location, SqliteLocation) and location.file.exists():
        yield "storage.url", location.file


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode
    except OSError:
        return 0  # another check reports files that cannot be read


def _certificates(settings: Settings) -> Iterator[tuple[str, Path]]:
    internal, tls = settings.listeners.internal, settings.listeners.public.tls
    yield "listeners.internal.certFile", internal.cert_file
    yield "listeners.internal.clientCAFile", internal.client_ca_file
    if tls is not None:
        yield "listeners.public.tls.certFile", tls.cert_file
    for index, upstream in enumerate(settings.upstreams):
        if upstream.ca_file is not None:
            yield f"upstreams[{index}].caFile", upstream.ca_file


def _validity(place: str, file: Path, now: float) -> Iterator[Finding]:
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        return  # told as a fault of the credential
    for certificate in certificates:
        begins = certificate.not_valid_before_utc.timestamp()
        ends = certificate.not_valid_after_utc.timestamp()
        if ends <= now:
            yield Finding(
                "certificate_expired", place,
                f"{file}: a certificate has expired, {_in_days(now - ends)} ago",
                "issue it anew, and look why nobody renewed it",
            )  # fmt: skip
        elif begins > now + _SKEW_SECONDS:
            yield Finding(
                "certificate_not_yet_valid", place,
                f"{file}: a certificate begins only in {_in_days(begins - now)}",
                "compare the clocks of this machine and of the issuer",
            )  # fmt: skip
        elif (ends - now) / (ends - begins) < _LEAST_LIFE:
            yield Finding(
                "certificate_ends_soon", place,
                f"{file}: a certificate has less than a tenth of its life left,"
                f" {_in_days(ends - now)}",
                "look why nobody renewed it",
            )  # fmt: skip


def _in_days(seconds: float) -> str:
    """For a person: whole days, or hours where there are less than two."""
    for name, unit in (("days", _DAY_SECONDS), ("hours", _HOUR_SECONDS)):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return "less than two hours"


def _names(settings: Settings) -> Iterator[Finding]:
    if not listener_tls.own_names(settings.listeners.internal):
        yield Finding(
            "internal_certificate_without_name", "listeners.internal.certFile",
            "it names no host, so no sidecar accepts it",
            "issue it for the DNS name in the sidecars' TOKENWARD_AUTHSERVER_URL",
        )  # fmt: skip
