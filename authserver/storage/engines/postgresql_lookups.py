"""Look-ups that are ready together, as one statement: a round trip costs more than a row.

`SELECT … WHERE a = ?` becomes a join of all that is asked for with that query, once for each. The
text is the same for any number of them, so a connection prepares it once.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from itertools import islice
from typing import Any, Final, Protocol

import asyncpg

from authserver.storage.contract import Row, StorageUnavailable

AT_A_TIME: Final = 2  # statements of one kind under way; what comes meanwhile goes into the next
MOST: Final = 200  # look-ups in one statement
IN_A_ROW: Final = 20  # statements before the connection goes back: others wait for one as well

_TYPES: Final = {str: "text", int: "bigint", bytes: "bytea"}

_Lookup = tuple[Sequence[object], "asyncio.Future[list[Row]]"]


class Fetching(Protocol):
    """A connection; `sql` has `$1` for its value. Raises the driver's errors."""

    async def fetch_all(self, sql: str, *arguments: object) -> list[Row]: ...


class Lookups:
    """Sends look-ups over a connection of the pool, and keeps it a while if more come.

    `connection` raises StorageUnavailable for what the driver raises within it.
    """

    def __init__(self, connection: Callable[[], AbstractAsyncContextManager[Fetching]]) -> None:
        self._connection = connection
        self._waiting: dict[str, list[_Lookup]] = {}
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}
        self._connected: Counter[str] = Counter()  # of those under way, which have a connection

    async def find(self, sql: str, *arguments: object) -> list[Row]:
        """The rows that `sql` finds; they are read after this call. Raises StorageUnavailable."""
        loop = asyncio.get_running_loop()
        rows: asyncio.Future[list[Row]] = loop.create_future()
        waiting = self._waiting.setdefault(sql, [])
        if not waiting:
            loop.call_soon(self._send, sql)
        waiting.append((arguments, rows))
        return await rows

    def _send(self, sql: str) -> None:
        """Send what waits, unless enough is under way already: then its end calls this."""
        under_way = self._under_way.setdefault(sql, set())
        while len(under_way) < AT_A_TIME and (lookups := self._next(sql)):
            task = asyncio.get_running_loop().create_task(self._answer_all(sql, lookups))
            under_way.add(task)
            task.add_done_callback(lambda done: self._ended(sql, done))

    def _ended(self, sql: str, task: "asyncio.Task[None]") -> None:
        self._under_way[sql].discard(task)
        self._send(sql)

    def _next(self, sql: str) -> list[_Lookup]:
        waiting = self._waiting[sql]
        lookups, waiting[:MOST] = waiting[:MOST], []
        return lookups

    async def _answer_all(self, sql: str, lookups: list[_Lookup]) -> None:
        """These, and then what waits when they are answered."""
        connected = False
        try:
            async with self._connection() as connection:
                connected, left = True, IN_A_ROW
                self._connected[sql] += 1
                while lookups:
                    await self._answer(connection, sql, lookups)
                    left -= 1
                    lookups = self._next(sql) if left else []
        except StorageUnavailable as unavailable:
            if not (connected or self._connected[sql]):
                # There is none for those either who came meanwhile: they would wait as long again.
                lookups, self._waiting[sql] = lookups + self._waiting[sql], []
            _fail(lookups, unavailable)
        except BaseException as error:
            _fail(lookups, StorageUnavailable(type(error).__name__))
            raise
        finally:
            if connected:
                self._connected[sql] -= 1

    async def _answer(self, connection: Fetching, sql: str, lookups: list[_Lookup]) -> None:
        try:
            rows = await _find_all(connection, sql, [arguments for arguments, _ in lookups])
        except asyncpg.DataError as error:
            if len(lookups) == 1:
                _fail(lookups, StorageUnavailable(type(error).__name__))
                return
            # One of them cannot be asked for at all, which must not cost the others theirs.
            for one in lookups:
                await self._answer(connection, sql, [one])
        else:
            for number, (_, future) in enumerate(lookups, 1):
                if not future.done():  # who asked may have gone
                    future.set_result(rows.get(number, []))


async def _find_all(
    connection: Fetching, sql: str, values: list[Sequence[object]]
) -> dict[int, list[Row]]:
    """The rows by the place of what was asked for, from 1."""
    text = together(sql, *(_TYPES[type(argument)] for argument in values[0]))
    rows = await connection.fetch_all(text, _as_json(values))
    by_place: dict[int, list[Row]] = {}
    for row in rows:
        by_place.setdefault(row[-1], []).append(_WithoutPlace(row))
    return by_place


def _as_json(values: list[Sequence[object]]) -> str:
    """Objects of `v1`, `v2` …, bytes as hexadecimal digits behind `\\x`."""
    return json.dumps(
        [
            {
                f"v{number}": f"\\x{value.hex()}" if isinstance(value, bytes) else value
                for number, value in enumerate(one, 1)
            }
            for one in values
        ],
        separators=(",", ":"),
    )


def _fail(lookups: list[_Lookup], why: StorageUnavailable) -> None:
    for _, future in lookups:
        if not future.done():
            future.set_exception(StorageUnavailable(*why.args))


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
    """`sql` for many at a time, with what is asked for as JSON; the last column counts from 1.

    An array for each value says the same, and takes twice as long in PostgreSQL and driver. `OFFSET
    0` keeps the planner, which takes the JSON for a hundred rows, from reading a whole table.
    """
    first, *rest = sql.split("?")
    one = first + "".join(f"wanted.v{number}{part}" for number, part in enumerate(rest, 1))
    named = ", ".join(f"v{number} {kind}" for number, kind in enumerate(types, 1))
    names = ", ".join(f"v{number}" for number in range(1, len(types) + 1))
    return (
        f"SELECT found.*, wanted.place FROM ROWS FROM (json_to_recordset($1::json) AS ({named}))"
        f" WITH ORDINALITY AS wanted ({names}, place) CROSS JOIN LATERAL ({one} OFFSET 0) AS found"
    )
