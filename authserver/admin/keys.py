"""What an operator runs beside the authserver: rewrap, forget-key and restored.

Each command opens the same storage with the same configuration, prints what it does for a person,
and returns the exit code: 0 when all is done, 1 when something is left. What deletes or ends
something leaves an event for the audit trail, which the next running authserver writes.
"""

import time
from collections.abc import Callable
from typing import Final

from authserver.admin.authority import Authority
from authserver.config.settings import Settings
from authserver.storage.backup_restore import Restoring
from authserver.storage.contract import Database
from authserver.storage.key_rotation import KeyRotation, Progress
from authserver.storage.operator_events import OperatorEvents
from chassis.clock import Clock

_REPORT_SECONDS: Final = 2.0

Say = Callable[[str], None]


async def rewrap(settings: Settings, database: Database, say: Say) -> int:
    """Seal everything anew under the first key, while authservers go on working."""
    keyring, keys = settings.keyring(), KeyRotation(database)
    progress, reported_at = Progress(), time.monotonic()
    async for progress in keys.rewrap(keyring):
        if time.monotonic() - reported_at > _REPORT_SECONDS:
            say(f"{progress.rewrapped} rewrapped so far")
            reported_at = time.monotonic()
    say(f"{progress.rewrapped} value(s) rewrapped under {keyring.sealing_id}")
    left = sorted(await keys.key_ids() - {keyring.sealing_id})
    if left:
        say(f"{progress.unreadable} could not be opened; still in use: {', '.join(left)}")
        return 1
    say(f"nothing refers to another key: all but {keyring.sealing_id} may be removed")
    return 0


async def forget_key(
    settings: Settings,
    database: Database,
    key_id: str,
    clock: Clock,
    say: Say,
    authority: Authority,
) -> int:
    """Give up what is sealed under a lost key; its users sign in again."""
    if key_id in settings.keyring().fingerprints:
        say(f"{key_id} is in encryptionKeys, so it is not lost: nothing was deleted")
        return 1
    now = int(clock())
    gone = await KeyRotation(database).forget(key_id, now)
    await OperatorEvents(database).add(authority.event(rows=gone), now)
    say(f"{gone} row(s) sealed under {key_id} deleted")
    return 0


async def restored(database: Database, clock: Clock, say: Say, authority: Authority) -> int:
    """After a restore: nothing of the backup acts as if time had stood still."""
    now = int(clock())
    disowned = await Restoring(database).invalidate(now)
    counts = {"sessions": disowned.sessions, "connections": disowned.connections}
    await OperatorEvents(database).add(authority.event(**counts), now)
    say(
        f"{disowned.sessions} session(s) ended, {disowned.connections} connection(s) wait for a"
        " new sign-in; registered clients and users are kept"
    )
    return 0
