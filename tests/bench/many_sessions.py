"""Live sessions in a database by the thousand, each of a user of its own."""

import secrets
import sqlite3
from contextlib import closing

from demo.layout import Layout


def add_sessions(layout: Layout, client_id: str, count: int) -> None:
    """Copies of a session that is there already, all of this client; their users have nothing."""
    with closing(sqlite3.connect(layout.database)) as database, database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(sessions)")]
        [template] = database.execute("SELECT * FROM sessions LIMIT 1").fetchall()
        for number in range(count):
            user_id = secrets.token_urlsafe(32)
            database.execute(
                "INSERT INTO users (user_id, upstream_issuer, subject, created_at)"
                " VALUES (?, 'https://departed.example', ?, 0)",
                (user_id, f"{client_id}-{number}"),
            )
            row = dict(zip(columns, template, strict=True)) | {
                "tsid": secrets.token_urlsafe(32),
                "user_id": user_id,
                "client_id": client_id,
            }
            places = ", ".join("?" * len(columns))
            database.execute(f"INSERT INTO sessions VALUES ({places})", list(row.values()))
