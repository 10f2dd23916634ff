"""What every storage engine offers.

The verbs beside this module are plain SQL in the subset that SQLite and PostgreSQL share, with
`?` for values. Between concurrent transactions they rely on two things only: that a statement
sees its row as it is when the row's turn comes (READ COMMITTED), and on `fetch_locked`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

# Reads the password where it is kept, each time a connection is made.
Password = Callable[[], str]


class StorageOpenError(Exception):
    """The database cannot be opened or migrated; one line, for whoever starts the process."""


class StorageUnavailable(Exception):
    """The database did not do what it was asked now; the caller answers 503 and grants nothing."""


class Row(Protocol):
    """A row: its columns by name, by place and in order."""

    def __getitem__(self, column: str | int | slice, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Writes(Protocol):
    """Takes statements of which nobody asks what they changed."""

    async def execute(self, sql: str, *arguments: object) -> object: ...


class Transactional(Protocol):
    """Statements inside one write transaction."""

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None: ...

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]: ...

    async def fetch_locked(self, sql: str, *arguments: object) -> Row | None:
        """A row that nobody else changes or locks before this transaction ends.

        `sql` selects from one table, without a clause behind its WHERE.
        """
        ...

    async def execute(self, sql: str, *arguments: object) -> int:
        """Run a statement; the number of rows it changed."""
        ...

    def together(self) -> AbstractAsyncContextManager[Writes]:
        """Statements of which none finds or changes a row that another one makes or changes.

        They are run as the block ends, in one round trip where the engine has any.
        """
        ...

    async def notify(self, channel: str) -> None:
        """Wake those that listen on `channel`, once this transaction is committed."""
        ...


class Database(Protocol):
    """An open, migrated database. Every verb raises StorageUnavailable where the engine fails."""

    async def fetch_one(self, sql: str, *arguments: object) -> Row | None: ...

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]: ...

    async def look_up(self, sql: str, *arguments: object) -> Row | None:
        """As `fetch_one`, for a query of many callers: those that are ready together may share one
        statement. `sql` is a SELECT without a LIMIT; no argument is None.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transactional]:
        """Run the block as one durable transaction; an exception rolls all of it back."""
        ...

    async def write(self, sql: str, *arguments: object) -> int:
        """One durable statement; the number of rows it changed."""
        ...

    async def write_returning(self, sql: str, *arguments: object) -> Row | None:
        """One durable statement with RETURNING; its first row."""
        ...

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` after each `notify` on `channel`, until cancelled.

        It may miss some, and hears nothing from an engine that cannot wake other processes.
        """
        ...

    async def close(self) -> None: ...
