"""Opens the database that a URL names."""

from authserver.storage.contract import Database, Password
from authserver.storage.engines.url import PostgresqlLocation, SqliteLocation, read_location


async def open_database(
    url: str, password: Password | None = None, *, migrates: bool = True
) -> Database:
    """Open and migrate the database at `url`. Raises StorageOpenError in one clear line.

    Without `migrates` nothing is made or changed: a database that does not exist, or is of another
    version, cannot be opened.

    Only the engine in use is imported: each brings a driver that costs start-up time and memory.
    """
    match read_location(url):
        case SqliteLocation(file):
            from authserver.storage.engines import sqlite

            return await sqlite.open_file(file, migrates=migrates)
        case PostgresqlLocation() as location:
            from authserver.storage.engines import postgresql

            return await postgresql.connect(location, password, migrates=migrates)
