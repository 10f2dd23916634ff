"""From what an operator types to what storage knows; an unknown name suggests the nearest.

A user is named by the pseudonym of the audit trail, by the id in a JWT's `sub`, by the subject at
the upstream, or by the account name that our pages show to that user. The last one is chosen at the
upstream, so a name that several accounts have selects nobody.
"""

from collections.abc import AsyncIterator, Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Final

from authserver.admin.opened import CommandFailed, Opened
from authserver.admin.rows import PAGE
from authserver.storage import accounts
from authserver.storage.contract import Row
from chassis.spiffe_id import Workload

_NEAR: Final = 0.6
_SHOWN: Final = 5


async def user_id_of(opened: Opened, name: str) -> str:
    """The user that `name` means. Raises CommandFailed for nobody and for several."""
    exact, by_account, nearest = [], [], _Nearest(name)
    async for row in _users(opened):
        pseudonym = opened.audit.pseudonym("user", row["user_id"])
        if name in (pseudonym, row["user_id"], row["subject"]):
            exact.append(row)
            continue
        account = accounts.read(row, opened.keyring).name
        if account == name:
            by_account.append(row)
        else:
            for one in (pseudonym, row["subject"]):
                nearest.look_at(one, shown=one)
            # The account name itself is for the user's own pages.
            nearest.look_at(account, shown=f"{pseudonym} (by account name)")
    matches = exact or by_account
    if not matches:
        raise CommandFailed(_unknown("user", name, nearest.names))
    if len(matches) > 1:
        raise CommandFailed(
            f"{len(matches)} users are called {name!r}; name one by its pseudonym:",
            *(_described(opened, row) for row in matches[:_SHOWN]),
        )
    return str(matches[0]["user_id"])


async def owner_of(opened: Opened, name: str) -> Workload:
    """The server `NAMESPACE/NAME`. Raises CommandFailed."""
    known = {str(resource.entry().owner) for resource in opened.settings.resources}
    for row in await opened.database.fetch_all(
        "SELECT DISTINCT owner_namespace, owner_name FROM sessions"
        " UNION SELECT DISTINCT owner_namespace, owner_name FROM connections"
    ):
        known.add(f"{row['owner_namespace']}/{row['owner_name']}")
    namespace, _, server = _known("server", name, known).partition("/")
    return Workload(namespace, server)


async def upstream_of(opened: Opened, name: str) -> str:
    """Raises CommandFailed."""
    rows = await opened.database.fetch_all("SELECT DISTINCT upstream FROM connections")
    configured = {upstream.name for upstream in opened.settings.upstreams}
    return _known("upstream", name, configured | {row["upstream"] for row in rows})


async def client_of(opened: Opened, name: str) -> str:
    """Raises CommandFailed."""
    rows = await opened.database.fetch_all("SELECT DISTINCT client_id FROM sessions")
    configured = {client.client_id for client in opened.settings.clients.static}
    return _known("client", name, configured | {row["client_id"] for row in rows})


async def tsid_of(opened: Opened, name: str) -> str:
    """The session with this pseudonym. Raises CommandFailed."""
    after = ""
    while rows := await opened.database.fetch_all(
        f"SELECT tsid FROM sessions WHERE tsid > ? ORDER BY tsid LIMIT {PAGE}", after
    ):
        for row in rows:
            if name in (opened.audit.pseudonym("session", row["tsid"]), row["tsid"]):
                return str(row["tsid"])
        after = rows[-1]["tsid"]
    raise CommandFailed(f"no session {name!r}: take it from `tokenward sessions list`")


async def _users(opened: Opened) -> AsyncIterator[Row]:
    after = ""
    while rows := await opened.database.fetch_all(
        "SELECT user_id, upstream_issuer, subject, sealed_account FROM users WHERE user_id > ?"
        f" ORDER BY user_id LIMIT {PAGE}",
        after,
    ):
        for row in rows:
            yield row
        after = rows[-1]["user_id"]


def _described(opened: Opened, row: Row) -> str:
    pseudonym = opened.audit.pseudonym("user", row["user_id"])
    return f"  {pseudonym}  {row['subject']} at {row['upstream_issuer']}"


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    if name in names:
        return name
    raise CommandFailed(_unknown(kind, name, get_close_matches(name, names, cutoff=_NEAR)))


def _unknown(kind: str, name: str, nearest: list[str]) -> str:
    if not nearest:
        return f"no {kind} {name!r}"
    return f"no {kind} {name!r}; did you mean {' or '.join(nearest)}?"


class _Nearest:
    """The names most like `name` of all that were looked at, in the memory of three."""

    def __init__(self, name: str) -> None:
        self._matcher = SequenceMatcher(autojunk=False)
        self._matcher.set_seq2(name)
        self._best: list[tuple[float, str]] = []

    def look_at(self, name: str, *, shown: str) -> None:
        self._matcher.set_seq1(name)
        # The bounds are cheap, and nearly all names fail them.
        if self._matcher.real_quick_ratio() < _NEAR or self._matcher.quick_ratio() < _NEAR:
            return
        if (ratio := self._matcher.ratio()) >= _NEAR:
            self._best = sorted([*self._best, (ratio, shown)], reverse=True)[:3]

    @property
    def names(self) -> list[str]:
        return [shown for _, shown in self._best]
