"""The arguments of every subcommand, with a help that shows an example each."""

import argparse
from pathlib import Path
from typing import Final

from chassis.version import VERSION

CONFIG: Final = Path("/etc/tokenward/authserver.yaml")

_EXIT_CODES: Final = """exit codes: 0 done; 1 could not, or problems were found; 2 wrong usage"""
_USER: Final = "by audit pseudonym, `sub` of a JWT, subject at the upstream, or account name"

_Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="tokenward",
        description="See, explain and end what Tokenward holds.",
        epilog=_example(
            "kubectl exec deploy/tokenward-authserver -- tokenward sessions list --user alice"
        )
        + f"\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"tokenward {VERSION}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_manifests(commands)
    _add_who_can(commands)
    _add_explain(commands)
    _add_users(commands)
    _add_sessions(commands)
    _add_connections(commands)
    _add_doctor(commands)
    _add_dev(commands)
    return top


def _example(*lines: str) -> str:
    return "\n".join(["example:", *(f"  {line}" for line in lines)])


def _command(
    commands: _Commands,  # type: ignore[valid-type]  # it is generic for type checkers only
    name: str,
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(  # type: ignore[attr-defined]
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=_example(example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return added


def _group(commands: _Commands, name: str, summary: str, example: str) -> _Commands:  # type: ignore[valid-type]
    group = _command(commands, name, summary, example)
    return group.add_subparsers(dest="action", required=True, metavar="ACTION")


def _add_manifests(commands: _Commands) -> None:  # type: ignore[valid-type]
    inject = _command(
        commands,
        "inject",
        "inject the sidecar into manifests, without a cluster",
        "tokenward inject -f deployment.yaml --config webhook.yaml",
    )
    inject.add_argument("-f", dest="file", metavar="FILE", required=True, help="- for stdin")
    inject.add_argument("--config", metavar="FILE", help="the webhook's configuration")
    inject.add_argument("--namespace", metavar="NS", default="default", help="of objects without")
    inject.add_argument("--explain", action="store_true", help="print decision, reason and patch")
    check = _command(
        commands,
        "check",
        "check a configuration file of the authserver or the webhook",
        "tokenward check authserver.yaml",
    )
    check.add_argument("file", metavar="FILE", type=Path)
    _add_output(check)


def _add_who_can(commands: _Commands) -> None:  # type: ignore[valid-type]
    who_can = _command(
        commands,
        "who-can",
        "list who can obtain which upstream's token through which server",
        "tokenward who-can --server mcp-servers/github",
    )
    who_can.add_argument("--user", metavar="USER", help=_USER)
    who_can.add_argument("--server", metavar="NS/NAME")
    who_can.add_argument("--upstream", metavar="NAME")
    who_can.add_argument(
        "--certificates",
        metavar="FILE",
        nargs="+",
        help="compare the certificates in logs of the controller and the authserver; - for stdin",
    )
    _add_common(who_can)


def _add_explain(commands: _Commands) -> None:  # type: ignore[valid-type]
    explain = _command(
        commands,
        "explain",
        "follow a request id through the logs of webhook, sidecar and authserver",
        "kubectl logs deploy/github -c tokenward | tokenward explain req-7f3a authserver.log -",
    )
    explain.add_argument("request_id", metavar="REQUEST_ID")
    explain.add_argument("files", metavar="FILE", nargs="*", help="logs; - or none for stdin")
    _add_output(explain)


def _add_users(commands: _Commands) -> None:  # type: ignore[valid-type]
    actions = _group(
        commands,
        "users",
        "keep a user out, or let one in again",
        "tokenward users block alice --reason 'left the company'",
    )
    for action, summary in (
        ("block", "refuse a user's sign-ins, refreshes and releases"),
        ("unblock", "let a blocked user in again"),
    ):
        user = _command(
            actions, action, summary, f"tokenward users {action} alice --reason 'ticket 4711'"
        )
        user.add_argument("user", metavar="USER", help=_USER)
        _add_destructive(user, selects=False)


def _add_sessions(commands: _Commands) -> None:  # type: ignore[valid-type]
    actions = _group(
        commands,
        "sessions",
        "list or end sessions",
        "tokenward sessions list --server mcp-servers/github",
    )
    listing = _command(
        actions, "list", "list live sessions", "tokenward sessions list --user alice --output json"
    )
    ending = _command(
        actions,
        "end",
        "end sessions, and revoke upstream what nobody else holds",
        "tokenward sessions end --user alice --reason 'stolen laptop'",
    )
    for one in (listing, ending):
        _add_selectors(one)
        one.add_argument("--session", metavar="SESSION", help="by its audit pseudonym")
    _add_common(listing)
    _add_destructive(ending)


def _add_connections(commands: _Commands) -> None:  # type: ignore[valid-type]
    actions = _group(
        commands,
        "connections",
        "list or disconnect connections to upstreams",
        "tokenward connections list --upstream github",
    )
    listing = _command(
        actions, "list", "list connections", "tokenward connections list --upstream github"
    )
    disconnecting = _command(
        actions,
        "disconnect",
        "delete connections and revoke them upstream; sessions stay",
        "tokenward connections disconnect --upstream github --dry-run",
    )
    for one in (listing, disconnecting):
        _add_selectors(one)
    _add_common(listing)
    _add_destructive(disconnecting)


def _add_doctor(commands: _Commands) -> None:  # type: ignore[valid-type]
    doctor = _command(
        commands,
        "doctor",
        "find what keeps users from their tokens, and say the remedy",
        "tokenward doctor --offline",
    )
    doctor.add_argument(
        "--offline", action="store_true", help="ask neither upstreams nor the public address"
    )
    doctor.add_argument(
        "--cluster", action="store_true", help="look at the cluster, with kubectl, and only there"
    )
    doctor.add_argument(
        "--kubectl", metavar="PROGRAM", default="kubectl", help="with --cluster: another kubectl"
    )
    doctor.add_argument(
        "--namespace",
        metavar="NS",
        default="tokenward-system",
        help="with --cluster: where Tokenward runs (default tokenward-system)",
    )
    _add_common(doctor)


def _add_dev(commands: _Commands) -> None:  # type: ignore[valid-type]
    dev = _command(
        commands,
        "dev",
        "run your MCP server with an upstream, an authserver and a sidecar on this machine",
        "tokenward dev --port 8000 -- python my_server.py",
    )
    dev.add_argument(
        "--port", metavar="PORT", type=int, default=8000, help="of your server (default 8000)"
    )
    dev.add_argument("--upstream", metavar="PRESET", help="a real provider, such as github")
    dev.add_argument("--client-id", metavar="ID", help="of your client there")
    dev.add_argument(
        "--client-secret-file", metavar="FILE", type=Path, help="the file with its secret"
    )
    dev.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a further member of the upstream, such as 'scopes=[repo]'; may be repeated",
    )
    dev.add_argument(
        "--public-port", metavar="PORT", type=int, help="of the authserver: its redirect URI"
    )
    dev.add_argument("server_command", metavar="COMMAND", nargs="+", help="after --")


def _add_selectors(one: argparse.ArgumentParser) -> None:
    one.add_argument("--user", metavar="USER", help=_USER)
    one.add_argument("--server", metavar="NS/NAME")
    one.add_argument("--upstream", metavar="NAME")
    one.add_argument("--client", metavar="CLIENT_ID")


def _add_destructive(one: argparse.ArgumentParser, *, selects: bool = True) -> None:
    one.add_argument("--reason", metavar="TEXT", help="for the audit trail; needed to act")
    one.add_argument("--dry-run", action="store_true", help="say what would be done")
    if selects:
        one.add_argument("--all", action="store_true", help="with --yes, in place of a selector")
        one.add_argument("--yes", action="store_true", help="with --all: really all of them")
    _add_common(one)


def _add_common(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=CONFIG,
        help=f"the authserver's configuration (default {CONFIG})",
    )
    _add_output(one)


def _add_output(one: argparse.ArgumentParser) -> None:
    one.add_argument("--output", choices=("text", "json"), default="text")
