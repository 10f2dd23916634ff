"""Look-ups that are ready together, as one statement: a round trip costs more than a row.

`SELECT … WHERE a = ?` becomes a join of all that is asked for with that query, once for each. The
text is the same for any number of them, so a connection prepares it once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import asyncpg

from authserver.storage.contract import Row, StorageUnavailable

AT_A_TIME: Final = 2  # statements of one kind under way; what comes meanwhile goes into the next
MOST: Final = 200  # look-ups in one statement

_TYPES: Final = {str: "text", int: "bigint", bytes: "bytea"}

_Lookup = tuple[Sequence[object], "asyncio.Future[Row | None]"]


class Lookups:
    """Sends look-ups through `fetch_all`, which takes `$1` for values and one list for each."""

    def __init__(self, fetch_all: Callable[..., Awaitable[list[Row]]]) -> None:
        self._fetch_all = fetch_all
        self._waiting: dict[str, list[_Lookup]] = {}
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}

    async def find(self, sql: str, *arguments: object) -> Row | None:
        """The first row that `sql` finds; it is read after this call. Raises StorageUnavailable."""
        loop = asyncio.get_running_loop()
        row: asyncio.Future[Row | None] = loop.create_future()
        waiting = self._waiting.setdefault(sql, [])
        if not waiting:
            loop.call_soon(self._send, sql)
        waiting.append((arguments, row))
        return await row

    def _send(self, sql: str) -> None:
        """Send what waits, unless enough is under way already: then its end calls this."""
        under_way, waiting = self._under_way.setdefault(sql, set()), self._waiting[sql]
        while waiting and len(under_way) < AT_A_TIME:
            lookups, waiting[:MOST] = waiting[:MOST], []
            task = asyncio.get_running_loop().create_task(self._answer(sql, lookups))
            under_way.add(task)
            task.add_done_callback(lambda done: self._ended(sql, done))

    def _ended(self, sql: str, task: "asyncio.Task[None]") -> None:
        self._under_way[sql].discard(task)
        self._send(sql)

    async def _answer(self, sql: str, lookups: list[_Lookup]) -> None:
        try:
            rows = await self._find_all(sql, [arguments for arguments, _ in lookups])
        except StorageUnavailable as unavailable:
            if len(lookups) > 1 and isinstance(unavailable.__cause__, asyncpg.DataError):
                # One of them cannot be asked for at all, which must not cost the others theirs.
                for one in lookups:
                    await self._answer(sql, [one])
                return
            self._fail(lookups, unavailable)
        except BaseException as error:
            self._fail(lookups, StorageUnavailable(type(error).__name__))
            raise
        else:
            for number, (_, row) in enumerate(lookups, 1):
                if not row.done():  # who asked may have gone
                    row.set_result(rows.get(number))

    async def _find_all(self, sql: str, values: list[Sequence[object]]) -> dict[int, Row]:
        """The rows by the place of what was asked for, from 1."""
        text = together(sql, *(_TYPES[type(argument)] for argument in values[0]))
        rows = await self._fetch_all(text, *([*column] for column in zip(*values, strict=True)))
        return {row[-1]: _WithoutPlace(row) for row in rows}

    def _fail(self, lookups: list[_Lookup], why: StorageUnavailable) -> None:
        for _, row in lookups:
            if not row.done():
                row.set_exception(StorageUnavailable(*why.args))


class _WithoutPlace:
    """A row without its last column."""

    __slots__ = ("_row",)

    def __init__(self, row: Row) -> None:
        self._row = row

    def __getitem__(self, column: str | int | slice) -> Any:
        return tuple(self)[column] if isinstance(column, int | slice) else self._row[column]

    def __iter__(self) -> Iterator[Any]:
        row: Any = self._row
        return islice(row, len(row) - 1)


@lru_cache(maxsize=64)
def together(sql: str, *types: str) -> str:
    """`sql` for many at a time, each value as an array; the last column numbers them from 1."""
    names = [f"asked_{number}" for number in range(1, len(types) + 1)]
    first, *rest = sql.split("?")
    one = first + "".join(f"asked.{name}{part}" for name, part in zip(names, rest, strict=True))
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, 1))
    return (
        f"SELECT found.*, asked.place FROM unnest({arrays}) WITH ORDINALITY"
        f" AS asked ({', '.join(names)}, place) CROSS JOIN LATERAL ({one} LIMIT 1) AS found"
    )
