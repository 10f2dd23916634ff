"""The database file from outside, as a thief, an accident or another process has it.

Never on the event loop: the server may hold a transaction that ends only when the loop goes on,
and a statement that waited for it there would wait in vain.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


async def sql(folder: Path, statement: str, *arguments: object) -> list[Any]:
    """Run a statement and commit it; its rows."""
    return await asyncio.to_thread(_run, folder, statement, arguments)


async def count(folder: Path, table: str) -> int:
    """How many rows a table has."""
    return int((await sql(folder, f"SELECT COUNT(*) FROM {table}"))[0][0])


async def dump(folder: Path) -> list[str]:
    """The whole database as statements."""
    return await asyncio.to_thread(_dump, folder)


def _run(folder: Path, statement: str, arguments: tuple[object, ...]) -> list[Any]:
    with closing(_opened(folder)) as database, database:
        return database.execute(statement, arguments).fetchall()


def _dump(folder: Path) -> list[str]:
    with closing(_opened(folder)) as database:
        return list(database.iterdump())


def _opened(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "tokenward.db")
