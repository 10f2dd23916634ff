"""The schema: numbered, forward-only SQL files, applied inside one transaction."""

import re
from importlib import resources
from typing import Final

from authserver.storage.contract import StorageOpenError, Transactional

_MIGRATION_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


def migrations() -> list[tuple[int, str]]:
    """Every migration as (number, SQL), in order; numbers run from 1 without a gap."""
    folder = resources.files(__package__) / "migrations"
    numbered = []
    for file in folder.iterdir():
        if match := _MIGRATION_NAME.fullmatch(file.name):
            numbered.append((int(match[1]), file.read_text("utf-8")))
    return sorted(numbered)


async def migrate(
    transaction: Transactional, tables: str, known: list[tuple[int, str]] | None = None
) -> None:
    """Bring the schema from any earlier version to ours. Raises StorageOpenError as `version` does.

    The transaction must keep other processes from migrating at the same time.
    """
    known = migrations() if known is None else known
    at = await version(transaction, tables, known[-1][0])
    if at is None:
        await transaction.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
        await transaction.execute("INSERT INTO schema_version (version) VALUES (0)")
    for number, sql in known[at or 0 :]:
        for statement in _statements(sql):
            await transaction.execute(statement)
        await transaction.execute("UPDATE schema_version SET version = ?", number)


async def expect_ours(transaction: Transactional, tables: str) -> None:
    """Raises StorageOpenError where the schema is not of our version; changes nothing."""
    at, ours = await version(transaction, tables), migrations()[-1][0]
    if at != ours:
        raise StorageOpenError(f"it has schema version {at or 0}; this program needs {ours}")


async def version(transaction: Transactional, tables: str, newest: int | None = None) -> int | None:
    """The last migration applied, None for an empty database; `tables` selects tables by name.

    Raises StorageOpenError for a database that this program must not touch.
    """
    newest = migrations()[-1][0] if newest is None else newest
    tables_present = {row["name"] for row in await transaction.fetch_all(tables)}
    if not tables_present:
        return None
    if "schema_version" not in tables_present:
        raise StorageOpenError(f"it holds another program's tables, such as {min(tables_present)}")
    row = await transaction.fetch_one("SELECT version FROM schema_version")
    at = int(row["version"]) if row else 0
    if at > newest:
        raise StorageOpenError(f"it has schema version {at}; this program knows up to {newest}")
    return at


def _statements(sql: str) -> list[str]:
    without_comments = re.sub(r"--[^\n]*", "", sql)
    return [statement for part in without_comments.split(";") if (statement := part.strip())]
