"""What a command needs: configuration, storage, keys and clock, opened as a running authserver's.

Nothing is migrated and no database is made: a command beside an authserver of another version says
so and changes nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from authserver.audit import Audit
from authserver.config.loader import load
from authserver.config.settings import Settings
from authserver.storage.audit_keys import AuditKeys
from authserver.storage.contract import Database, StorageOpenError, StorageUnavailable
from authserver.storage.engines.open import open_database
from authserver.storage.keyring import DecryptionFailed, Keyring
from authserver.values import Value
from chassis.clock import Clock
from chassis.process import ConfigurationError


class CommandFailed(Exception):
    """A command cannot be carried out; each line is for a person."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class Opened(Value, frozen=True):
    """An installation, as commands see it; `clock` is Unix time."""

    settings: Settings
    database: Database
    keyring: Keyring
    audit: Audit
    clock: Clock


@asynccontextmanager
async def opened(config: Path, clock: Clock) -> AsyncIterator[Opened]:
    """The installation of a configuration file. Raises CommandFailed."""
    settings = load_settings(config)
    try:
        database = await open_database(
            settings.storage.url, settings.storage.password, migrates=False
        )
    except StorageOpenError as unusable:
        raise CommandFailed(f"storage: {unusable}") from None
    try:
        keyring = settings.keyring()
        audit_key = await AuditKeys(database, keyring).key()
        yield Opened(settings, database, keyring, Audit(audit_key), clock)
    except StorageUnavailable as down:
        raise CommandFailed(
            f"storage: it does not answer, or is locked by another process ({down}); run the"
            " command again"
        ) from None
    except DecryptionFailed as failed:
        raise CommandFailed(
            f"storage: the audit key does not open ({failed}): compare encryptionKeys"
        ) from None
    finally:
        await database.close()


def load_settings(config: Path) -> Settings:
    """The checked configuration. Raises CommandFailed with every fault."""
    try:
        return load(config)
    except ConfigurationError as bad:
        raise CommandFailed(*(str(fault) for fault in bad.faults)) from None
