"""The name by which a user knows their account: sealed, and shown on our pages only."""

from typing import Final

import msgspec

from authserver.storage.contract import Row, Writes
from authserver.storage.keyring import DecryptionFailed, Keyring, key_id_of
from authserver.storage.records import NO_ACCOUNT, Account
from chassis.logs import Log

_log = Log("accounts")
_account_of: Final = msgspec.json.Decoder(Account).decode


async def put(writes: Writes, keyring: Keyring, user_id: str, account: Account) -> None:
    """Store the account of an existing user, within a sign-in's transaction."""
    sealed = keyring.seal(msgspec.json.encode(account), *associated_data(user_id))
    await writes.execute(
        "UPDATE users SET sealed_account = ?, sealed_under = ? WHERE user_id = ?",
        sealed,
        key_id_of(sealed),
        user_id,
    )


def read(row: Row, keyring: Keyring) -> Account:
    """The account in a row of `users`. One that does not open costs nobody a sign-in."""
    if row["sealed_account"] is None:
        return NO_ACCOUNT
    try:
        opened = keyring.open(row["sealed_account"], *associated_data(row["user_id"]))
    except DecryptionFailed:
        _log.warning("account_unreadable")
        return NO_ACCOUNT
    return _account_of(opened)


def associated_data(user_id: str) -> tuple[str, ...]:
    """Where a sealed account belongs: to its user."""
    return ("users", "sealed_account", user_id)
