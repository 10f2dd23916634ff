"""A real PgBouncer in front of a test's PostgreSQL; its tests are skipped where it is missing."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.postgresql import USER, PostgresqlServer

PROGRAM = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/bin:/usr/sbin:/usr/local/bin")
_START_SECONDS = 30.0

needs_pgbouncer = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"
)


async def new_database(server: PostgresqlServer) -> str:
    """The name of an empty one; a URL through a pooler is made of it."""
    return (await server.create_database()).rpartition("/")[2]


async def give_role_settings(server: PostgresqlServer, database: str) -> None:
    """What pool mode `transaction` needs, since settings of a session are lost there."""
    for name, value in (
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "20s"),
        ("synchronous_commit", "on"),
    ):
        await server.execute(f"ALTER ROLE {USER} IN DATABASE {database} SET {name} = '{value}'")


@contextmanager
def pgbouncer(server: PostgresqlServer, mode: str, *settings: str) -> Iterator[int]:
    """The port of a PgBouncer in pool mode `mode`; `settings` are more lines of its file."""
    assert PROGRAM is not None
    folder = Path(tempfile.mkdtemp(prefix="tokenward-pgbouncer-"))
    port = _free_port()
    (folder / "users.txt").write_text(f'"{USER}" "{server.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        "\n".join(
            (
                "[databases]",
                f"* = host=127.0.0.1 port={server.port}",
                "[pgbouncer]",
                "listen_addr = 127.0.0.1",
                f"listen_port = {port}",
                "unix_socket_dir =",
                "auth_type = plain",
                f"auth_file = {folder / 'users.txt'}",
                f"pool_mode = {mode}",
                *settings,
                "",
            )
        )
    )
    nobody = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None  # it refuses root
    if nobody is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody, -1)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, str(folder / "pgbouncer.ini")], stdout=log, stderr=log, user=nobody
        )
    try:
        _await_port(process, port, folder / "log")
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def _free_port() -> int:
    while True:
        port = secrets.choice(range(20_000, 32_768))
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
