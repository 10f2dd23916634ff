"""The commands that open storage: who-can, users, sessions and connections."""

import argparse
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from authserver.admin import names, rows
from authserver.admin.authority import Authority, os_user
from authserver.admin.ending import MAX_HELD_SECONDS, Ending, Report
from authserver.admin.exchanged import exchanged
from authserver.admin.opened import Opened, opened
from authserver.admin.selection import Selection
from authserver.admin.who_can import who_can as rights
from authserver.upstream.http_client import UpstreamHttp
from chassis import clock
from tokenward.output import Output

_SESSIONS: Final = (
    "session",
    "user",
    "subject",
    "server",
    "client",
    "signed_in",
    "expires",
    "state",
)
_CONNECTIONS: Final = (
    "user",
    "subject",
    "server",
    "upstream",
    "account",
    "audience",
    "scope",
    "expires",
    "state",
)
_RIGHTS: Final = (
    "user",
    "subject",
    "server",
    "upstream",
    "audience",
    "scope",
    "sessions",
    "until",
    "needs_user",
    "state",
)
_SELECTORS: Final = ("user", "server", "upstream", "client", "session")

_FATES: Final = {
    "revoked": "revoked",
    "queued": "not revoked yet: the authserver tries again for 7 days",
    "registration_not_configured": "not revoked: the tokens were given to a client that is not"
    " configured; put it back within 7 days, or end the grant at the provider",
    "still_used": "not revoked: another connection of the user lives on the same grant",
    "no_revocation_endpoint": "not revoked: the upstream offers no way to",
    "given_up": "not revoked: the upstream refuses; end the grant at the provider",
}


class WrongUsage(Exception):
    """The arguments do not say what may be done; one line."""


async def who_can(parsed: argparse.Namespace) -> int:
    async with opened(parsed.config, clock.wall) as installation:
        selection = await _selection(installation, parsed)
        await Output(parsed.output).listing("rights", _RIGHTS, rights(installation, selection))
    return 0


async def sessions(parsed: argparse.Namespace) -> int:
    if parsed.action == "list":
        return await _list(parsed, "sessions", _SESSIONS, rows.sessions)
    return await _end(parsed, "sessions", rows.sessions, "end_sessions")


async def connections(parsed: argparse.Namespace) -> int:
    if parsed.action == "list":
        return await _list(parsed, "connections", _CONNECTIONS, _with_exchanged)
    return await _end(parsed, "connections", rows.connections, "disconnect")


async def _with_exchanged(
    installation: Opened, selection: Selection
) -> AsyncIterator[dict[str, Any]]:
    """Connections, and behind them the tokens that were made of theirs."""
    for listing in (rows.connections, exchanged):
        async for item in listing(installation, selection):
            yield item


async def users(parsed: argparse.Namespace) -> int:
    """Block or unblock one user; a user who is blocked already stays so, and that is no failure."""
    _check_reason(parsed)
    async with opened(parsed.config, clock.wall) as installation, UpstreamHttp() as http:
        user_id = await names.user_id_of(installation, parsed.user)
        pseudonym = installation.audit.pseudonym("user", user_id)
        verb = "block" if parsed.action == "block" else "unblock"
        if parsed.dry_run:
            members = {"dry_run": True, "user": pseudonym}
            Output(parsed.output).report(members, [f"would {verb} user {pseudonym}"])
            return 0
        ending = Ending(installation, http)
        authority = _authority(parsed, f"user={pseudonym}")
        act = ending.block if verb == "block" else ending.unblock
        report = await act(user_id, authority)
        _tell_of_user(parsed, verb, pseudonym, report)
    return 0


def _tell_of_user(parsed: argparse.Namespace, verb: str, pseudonym: str, report: Report) -> None:
    changed = report.users == 1
    lines = [f"user {pseudonym} {'is now' if changed else 'was already'} {verb}ed"]
    if verb == "block":
        lines += _held(report)
        lines.append("sessions stay for an unblock; `tokenward sessions end` ends them for good")
    members = {"user": pseudonym, "changed": changed, "action": verb, **_held_members(report)}
    Output(parsed.output).report(members, lines)


Listing = Callable[[Opened, Selection], AsyncIterator[dict[str, Any]]]


async def _list(
    parsed: argparse.Namespace, name: str, columns: tuple[str, ...], listing: Listing
) -> int:
    async with opened(parsed.config, clock.wall) as installation:
        selection = await _selection(installation, parsed)
        await Output(parsed.output).listing(name, columns, listing(installation, selection))
    return 0


async def _end(parsed: argparse.Namespace, name: str, listing: Listing, verb: str) -> int:
    """End or disconnect a selection. Exit code 1 where a grant that could end upstream has not."""
    _check_selected(parsed)
    _check_reason(parsed)
    async with opened(parsed.config, clock.wall) as installation, UpstreamHttp() as http:
        selection = await _selection(installation, parsed)
        if parsed.dry_run:
            count = len([None async for _ in listing(installation, selection)])
            members = {"dry_run": True, name: count}
            Output(parsed.output).report(members, [f"would {parsed.action} {count} {name}"])
            return 0
        ending = Ending(installation, http)
        authority = _authority(parsed, _described(installation, selection))
        act = ending.end_sessions if verb == "end_sessions" else ending.disconnect
        report = await act(selection, authority)
    Output(parsed.output).report(_members(report), _lines(report))
    failed = {"queued", "registration_not_configured", "given_up"}
    return int(any(fate in failed for _, fate, _ in report.fates))


def _check_selected(parsed: argparse.Namespace) -> None:
    selected = any(getattr(parsed, name, None) is not None for name in _SELECTORS)
    if selected and parsed.all:
        raise WrongUsage("--all does not go with a selector")
    if not selected and not parsed.all:
        raise WrongUsage("say which: a selector such as --user, or --all --yes")
    if parsed.all and not (parsed.yes or parsed.dry_run):
        raise WrongUsage("--all needs --yes; look first with --dry-run")


def _check_reason(parsed: argparse.Namespace) -> None:
    if not parsed.dry_run and not (parsed.reason or "").strip():
        raise WrongUsage("--reason is needed: it goes into the audit trail")


async def _selection(installation: Opened, parsed: argparse.Namespace) -> Selection:
    user, server, upstream, client, session = (getattr(parsed, name, None) for name in _SELECTORS)
    return Selection(
        None if user is None else await names.user_id_of(installation, user),
        None if server is None else await names.owner_of(installation, server),
        None if upstream is None else await names.upstream_of(installation, upstream),
        None if client is None else await names.client_of(installation, client),
        None if session is None else await names.tsid_of(installation, session),
    )


def _described(installation: Opened, selection: Selection) -> str:
    """The selection for the audit trail; users and sessions as pseudonyms."""
    pseudonym = installation.audit.pseudonym
    parts = {
        "user": selection.user_id and pseudonym("user", selection.user_id),
        "server": selection.owner and str(selection.owner),
        "upstream": selection.upstream,
        "client": selection.client_id,
        "session": selection.tsid and pseudonym("session", selection.tsid),
    }
    return " ".join(f"{name}={value}" for name, value in parts.items() if value) or "all"


def _authority(parsed: argparse.Namespace, selection: str) -> Authority:
    return Authority(f"{parsed.command} {parsed.action}", parsed.reason, os_user(), selection)


def _lines(report: Report) -> list[str]:
    lines = [f"{report.sessions} session(s) ended, {report.connections} connection(s) deleted"]
    for (upstream, fate, reason), count in sorted(report.fates.items()):
        more = f" ({reason})" if reason else ""
        lines.append(f"  {count} at {upstream}: {_FATES[fate]}{more}")
    return [*lines, *_held(report)]


def _held(report: Report) -> list[str]:
    if not report.servers:
        return []
    until = rows.moment(report.held_until)
    return [
        f"{report.sidecars} sidecar(s) of {len(report.servers)} server(s) follow the revocation"
        f" feed and drop it within 2 seconds; any other may hold a token until {until}"
    ]


def _members(report: Report) -> dict[str, Any]:
    upstream = [
        {"upstream": name, "outcome": fate, "reason": reason or None, "count": count}
        for (name, fate, reason), count in sorted(report.fates.items())
    ]
    return {
        "sessions": report.sessions,
        "connections": report.connections,
        "upstream_revocations": upstream,
        **_held_members(report),
    }


def _held_members(report: Report) -> dict[str, Any]:
    until = rows.moment(report.held_until) if report.servers else None
    return {
        "servers": sorted(report.servers),
        "sidecars": report.sidecars,
        "held_until": until,
        "held_seconds": MAX_HELD_SECONDS if report.servers else 0,
    }
