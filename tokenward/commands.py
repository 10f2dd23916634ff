"""From parsed arguments to what each command does; failures are one line each on stderr."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tokenward.output import printable

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

Command = Callable[[argparse.Namespace], int]
Admin = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]


def complain(*lines: str) -> None:
    for line in lines:
        print(f"error: {printable(line)}", file=sys.stderr)


def _administration(name: str) -> Command:
    """A command of `tokenward.administration`, which needs the authserver's packages."""

    def run(parsed: argparse.Namespace) -> int:
        from authserver.admin.opened import CommandFailed
        from tokenward import administration

        # A command talks to a person; its audit event goes by way of the database.
        logging.getLogger().addHandler(logging.NullHandler())
        admin: Admin = getattr(administration, name)
        try:
            return asyncio.run(admin(parsed))
        except administration.WrongUsage as wrong:
            complain(str(wrong))
            return EXIT_USAGE
        except CommandFailed as failed:
            complain(*failed.lines)
            return EXIT_FAILED

    return run


def _inject(parsed: argparse.Namespace) -> int:
    from webhook.inject_command import inject

    return inject(parsed)


def _check(parsed: argparse.Namespace) -> int:
    from tokenward.check import check

    return check(parsed)


def _explain(parsed: argparse.Namespace) -> int:
    from tokenward.explain import explain

    return explain(parsed)


def _doctor(parsed: argparse.Namespace) -> int:
    from authserver.admin.opened import CommandFailed
    from tokenward.doctor import doctor

    try:
        return doctor(parsed)
    except CommandFailed as failed:
        complain(*failed.lines)
        return EXIT_FAILED


def _who_can(parsed: argparse.Namespace) -> int:
    if parsed.certificates is None:
        return _administration("who_can")(parsed)
    if parsed.user or parsed.server or parsed.upstream:
        complain("--certificates reads logs only: no selector goes with it")
        return EXIT_USAGE
    from tokenward.certificates import certificates

    return certificates(parsed)


def _dev(parsed: argparse.Namespace) -> int:
    from tokenward.dev import dev
    from tokenward.dev_upstream import usage_faults

    if faults := list(usage_faults(parsed)):
        complain(*faults)
        return EXIT_USAGE

    return dev(parsed)


COMMANDS: Final[dict[str, Command]] = {
    "inject": _inject,
    "check": _check,
    "explain": _explain,
    "who-can": _who_can,
    "users": _administration("users"),
    "sessions": _administration("sessions"),
    "connections": _administration("connections"),
    "doctor": _doctor,
    "dev": _dev,
}
