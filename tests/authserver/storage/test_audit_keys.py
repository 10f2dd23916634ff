"""The key of pseudonyms is made once, whoever comes first, and outlives encryption keys."""

import pytest

from authserver.audit import Audit
from authserver.storage.audit_keys import AuditKeys
from authserver.storage.contract import Database
from authserver.storage.key_rotation import KeyRotation
from authserver.storage.keyring import DecryptionFailed, Keyring
from tests.support.storage_fixtures import KEY, NOW, together

OLD, NEW = Keyring([KEY]), Keyring([("k2", b"2" * 32)])
BOTH = Keyring([("k2", b"2" * 32), KEY])


async def test_all_replicas_get_one_key(database: Database, other: Database) -> None:
    openings = [database, other] * 5
    keys = await together(AuditKeys(opening, OLD).key() for opening in openings)
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    row = await database.fetch_one("SELECT sealed_key FROM audit_keys")
    assert row is not None
    assert keys[0] not in bytes(row["sealed_key"])


async def test_a_user_keeps_the_pseudonym_when_encryption_keys_are_rotated(
    database: Database,
) -> None:
    before = Audit(await AuditKeys(database, OLD).key()).pseudonym("user", "u-1")
    assert Audit(await AuditKeys(database, BOTH).key()).pseudonym("user", "u-1") == before
    assert [progress.rewrapped async for progress in KeyRotation(database).rewrap(BOTH)] == [1]
    assert Audit(await AuditKeys(database, NEW).key()).pseudonym("user", "u-1") == before


async def test_a_key_whose_encryption_key_is_missing_is_not_replaced_in_silence(
    database: Database,
) -> None:
    await AuditKeys(database, OLD).key()
    with pytest.raises(DecryptionFailed):
        await AuditKeys(database, NEW).key()
    assert await KeyRotation(database).forget("k1", NOW) == 1
    assert len(await AuditKeys(database, NEW).key()) == 32


async def test_pseudonyms_and_handles_differ_by_kind_owner_and_deployment() -> None:
    audit, elsewhere = Audit(b"1" * 32), Audit(b"2" * 32)
    seen = {
        audit.pseudonym("user", "x"),
        audit.pseudonym("session", "x"),
        elsewhere.pseudonym("user", "x"),
        audit.handle("session", "mcp-servers/notes", "x"),
        audit.handle("session", "mcp-servers/tasks", "x"),
        audit.handle("connection", "mcp-servers/notes", "x"),
        audit.handle("connection", "mcp-servers/notes", "x", ""),
        elsewhere.handle("session", "mcp-servers/notes", "x"),
    }
    assert len(seen) == 8
