"""Opens the database that a URL names."""

from authserver.storage.contract import Database, Password
from authserver.storage.engines.url import PostgresqlLocation, SqliteLocation, read_location


async def open_database(url: str, password: Password | None = None) -> Database:
    """Open and migrate the database at `url`. Raises StorageOpenError in one clear line.

    Only the engine in use is imported: each brings a driver that costs start-up time and memory.
    """
    match read_location(url):
        case SqliteLocation(file):
            from authserver.storage.engines import sqlite

            return await sqlite.open_file(file)
        case PostgresqlLocation() as location:
            from authserver.storage.engines import postgresql

            return await postgresql.connect(location, password)
