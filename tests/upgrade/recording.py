"""A database of the first build with its users' tokens, kept as text, and put back for a test.

`python -m tests.upgrade.recording` makes it anew. It holds nothing but what a test run made up.
"""

import asyncio
import json
import re
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from chassis import clock
from demo.upstream import USERS
from tests.support.database_file import dump
from tests.support.deployment import SignedIn
from tests.upgrade.first_build import Installation, extract, installation

_FOLDER: Final = Path(__file__).resolve().parent
_DATABASE: Final = _FOLDER / "first_build.sql"
_TOKENS: Final = _FOLDER / "first_build.json"
_WORKLOADS: Final = {"acme": "mcp-servers/notes", "hub": "mcp-servers/tasks"}


async def record() -> None:
    """Sign users in at the first build, and keep its database and what they hold."""
    with tempfile.TemporaryDirectory() as temporary:
        tree, folder = (Path(temporary) / name for name in ("tree", "installation"))
        folder.mkdir()
        extract(tree)
        async with installation(folder) as it:
            await it.start(tree)
            await it.sign_in()
            await it.refresh("alice again")
            grants = await _upstream_grants(it)
            await it.kill()
            _write(it, grants, await dump(folder))


async def _upstream_grants(it: Installation) -> list[dict[str, str]]:
    """The refresh token behind each user's connection, from the upstream's own memory."""
    grants = []
    for name, upstream in (("alice", "acme"), ("bob", "acme"), ("alice at tasks", "hub")):
        jwt = it.users[name].access_token
        released = await it.deployment.exchange(_WORKLOADS[upstream], jwt)
        provider = it.deployment.upstream if upstream == "acme" else it.hub
        grant = provider.grants.bearer(released.json()["access_token"])
        grants.append(
            {
                "upstream": upstream,
                "login": grant.user.login,
                "scope": grant.scope,
                "refresh_token": grant.refresh_token,
            }
        )
    return grants


def _write(it: Installation, grants: list[dict[str, str]], statements: list[str]) -> None:
    text = "\n".join(statements) + "\n"
    for origin, name in _origins(it).items():
        text = text.replace(origin, f"http://{name}.invalid")
    _DATABASE.write_text(text)
    tokens = {
        "recorded_at": int(clock.wall()),
        "encryption_key": (it.folder / "k1").read_text(),
        "users": {
            name: {"client_id": user.client_id, "refresh_token": user.refresh_token}
            for name, user in it.users.items()
        },
        "grants": grants,
    }
    _TOKENS.write_text(json.dumps(tokens, indent=2) + "\n")


def restore(it: Installation) -> None:
    """Put the recorded database, its key and its users into an installation that does not run.

    Its times move along, as if it had been recorded just now; what is sealed in it stays old.
    """
    recorded: dict[str, Any] = json.loads(_TOKENS.read_text())
    text = _DATABASE.read_text()
    for origin, name in _origins(it).items():
        text = text.replace(f"http://{name}.invalid", origin)
    with closing(sqlite3.connect(it.folder / "tokenward.db")) as database, database:
        database.executescript(text)
        _move_times(database, int(clock.wall()) - recorded["recorded_at"])
    (it.folder / "k1").write_text(recorded["encryption_key"])
    for grant in recorded["grants"]:
        provider = it.deployment.upstream if grant["upstream"] == "acme" else it.hub
        provider.grants.restore(
            USERS[grant["login"]], scope=grant["scope"], refresh_token=grant["refresh_token"]
        )
    nothing = asdict(SignedIn("", "", "Bearer", 0, ""))
    it.users = {name: SignedIn(**(nothing | user)) for name, user in recorded["users"].items()}


def _move_times(database: sqlite3.Connection, seconds: int) -> None:
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for column in database.execute(f"PRAGMA table_info({table})").fetchall():
            if re.fullmatch(r"\w+_(at|since)", column[1]):
                database.execute(f"UPDATE {table} SET {column[1]} = {column[1]} + ?", (seconds,))


def _origins(it: Installation) -> dict[str, str]:
    return {it.deployment.upstream.issuer: "acme", it.hub.issuer: "hub"}


if __name__ == "__main__":
    asyncio.run(record())
