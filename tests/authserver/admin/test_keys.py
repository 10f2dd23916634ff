"""The how-to pages on keys and backups: the commands on them, run as they stand there."""

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from authserver.admin.authority import os_user
from authserver.storage.contract import StorageOpenError
from authserver.storage.key_rotation import KeyRotation
from authserver.storage.keyring import Keyring, read_key
from authserver.storage.operator_events import OperatorEvents
from demo.pki import CertificateAuthority
from tests.support.deployment import configuration_of, write_material
from tests.support.postgresql import PostgresqlServer, starts_postgresql
from tests.support.storage_fixtures import NOW, Place, Store

ROOT = Path(__file__).resolve().parents[3]


class Operator:
    """Somebody with the pages, a shell and a configuration."""

    def __init__(self, folder: Path, server: PostgresqlServer | None, url: str) -> None:
        self._folder, self._server = folder, server
        authorities = (CertificateAuthority.create(name) for name in ("servers", "workloads"))
        write_material(folder, *authorities)
        self._members = configuration_of(folder, "http://127.0.0.1:1", "http://127.0.0.1:2")
        self.place = Place(url, server.password_file if server else None)
        storage = {"url": url}
        if server is not None:
            storage["passwordFile"] = str(server.password_file)
        self._members["storage"] = storage
        self.list_keys("k1")

    def list_keys(self, *ids: str) -> None:
        self._members["encryptionKeys"] = [{"id": key_id, "file": key_id} for key_id in ids]
        (self._folder / "authserver.yaml").write_text(yaml.safe_dump(self._members))

    def key_file(self, key_id: str) -> Path:
        return self._folder / key_id

    def keyring(self, *ids: str) -> Keyring:
        return Keyring([(name, read_key((self._folder / name).read_text())) for name in ids])

    def run(self, command: str) -> str:
        programs = [str(Path(sys.executable).parent), os.defpath]
        if self._server is not None:
            programs.insert(0, str(self._server.programs))
        environment = {
            "PATH": ":".join(programs),
            "CONFIG": str(self._folder / "authserver.yaml"),
            "KEYS": str(self._folder),
            "DATABASE": self.place.url.removeprefix("sqlite://"),
            "URL": self.place.url,
            "BACKUP": str(self._folder / "backup"),
            "PGPASSWORD": self._server.password if self._server else "",
        }
        done = subprocess.run(
            ["sh", "-ec", command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def store(self, *ids: str) -> Store:
        return Store(await self.place.open(), keyring=self.keyring(*ids))


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    with PostgresqlServer("fsync = off") as server:
        yield server


@pytest.fixture(params=["sh", pytest.param("pg", marks=starts_postgresql)])
async def operator(request: pytest.FixtureRequest, tmp_path: Path) -> Operator:
    if request.param == "sh":
        return Operator(tmp_path, None, f"sqlite://{tmp_path}/tokenward.db")
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return Operator(tmp_path, server, await server.create_database())


def commands(page: str, language: str = "sh") -> list[str]:
    text = (ROOT / "docs/how-to" / page).read_text()
    return [found.strip() for found in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


async def test_keys_are_rotated_as_the_page_says(operator: Operator) -> None:
    store = await operator.store("k1")
    found = await store.connected()
    make, rewrap = commands("rotate-encryption-keys.md")
    await asyncio.to_thread(operator.run, make)
    assert stat.S_IMODE(operator.key_file("k2").stat().st_mode) == 0o600
    operator.list_keys("k2", "k1")
    said = await asyncio.to_thread(operator.run, rewrap)
    assert "1 value(s) rewrapped under k2" in said
    assert "all but k2 may be removed" in said
    await KeyRotation(store.database).check(operator.keyring("k2"))
    new = await operator.store("k2")
    assert await new.connections.get(found.key) == found
    await new.database.close()
    await store.database.close()


async def test_a_lost_key_is_given_up_as_the_page_says(operator: Operator) -> None:
    store = await operator.store("k1")
    found = await store.connected()
    make, forget = commands("lose-a-key.md")
    await asyncio.to_thread(operator.run, make)
    operator.list_keys("k2")
    with pytest.raises(StorageOpenError, match="k1 is missing"):
        await KeyRotation(store.database).check(operator.keyring("k2"))
    said = await asyncio.to_thread(operator.run, forget)
    assert "1 row(s) sealed under k1 deleted" in said
    [event] = await OperatorEvents(store.database).waiting()
    assert event.fields == {
        "command": "forget-key",
        "reason": "k1 is lost",
        "os_user": os_user(),
        "selection": "key=k1",
        "rows": 1,
    }
    await KeyRotation(store.database).check(operator.keyring("k2"))
    assert await store.connections.get(found.key) is None
    await store.database.close()


async def test_a_key_that_is_in_use_is_not_given_up(operator: Operator) -> None:
    store = await operator.store("k1")
    found = await store.connected()
    with pytest.raises(AssertionError, match="k1 is in encryptionKeys"):
        await asyncio.to_thread(operator.run, commands("lose-a-key.md")[1])
    assert await store.connections.get(found.key) == found
    assert await OperatorEvents(store.database).waiting() == []
    await store.database.close()


@pytest.mark.parametrize("command", ["forget-key --key-id k1", "restored"])
@pytest.mark.parametrize("reason", ["", "--reason ' '"])
async def test_without_a_reason_nothing_is_deleted(
    operator: Operator, command: str, reason: str
) -> None:
    store = await operator.store("k1")
    found = await store.connected()
    make, _ = commands("lose-a-key.md")
    await asyncio.to_thread(operator.run, make)
    operator.list_keys("k2")
    whole = f'python -m authserver {command} {reason} --config "$CONFIG"'
    with pytest.raises(AssertionError, match="--reason goes with"):
        await asyncio.to_thread(operator.run, whole)
    assert await store.connections.get(found.key) == found
    assert await store.sessions.live(NOW) == 1
    await store.database.close()


async def test_a_backup_is_restored_as_the_page_says(
    operator: Operator, request: pytest.FixtureRequest
) -> None:
    language = "sh" if operator.place.password_file is None else "pg"
    back_up, put_back, invalidate = commands("back-up-and-restore.md", language)
    store = await operator.store("k1")
    found = await store.connected()
    await asyncio.to_thread(operator.run, back_up)
    later = await store.connected()
    await store.database.close()
    await asyncio.to_thread(operator.run, put_back)
    said = await asyncio.to_thread(operator.run, invalidate)
    assert "1 session(s) ended, 1 connection(s) wait for a new sign-in" in said
    restored = await operator.store("k1")
    [event] = await OperatorEvents(restored.database).waiting()
    assert (event.fields["command"], event.fields["reason"]) == ("restored", "backup of Monday")
    assert (event.fields["sessions"], event.fields["connections"]) == (1, 1)
    kept = await restored.connections.get(found.key)
    assert kept is not None
    assert kept.dead
    assert kept.tokens == found.tokens
    assert await restored.connections.get(later.key) is None
    assert await restored.sessions.live(NOW) == 0
    await restored.database.close()
