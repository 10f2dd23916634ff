"""`tokenward COMMAND`, and `python -m tokenward COMMAND`."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from tokenward.arguments import parser

EXIT_FAILED = 1
_NICENESS = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; its exit code. Only what the command needs is imported."""
    parsed = parser().parse_args(arguments)
    try:
        from tokenward.commands import COMMANDS

        return COMMANDS[parsed.command](parsed)
    except ModuleNotFoundError as missing:
        print(
            f"error: {missing.name} is not installed here; install tokenward[authserver,webhook]",
            file=sys.stderr,
        )
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read the listing has seen enough. Python would complain once more at its end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def run() -> None:
    """The console script. Most commands work beside a server in its container: it goes first."""
    if sys.argv[1:2] != ["dev"]:  # its children are the servers
        os.nice(_NICENESS)
    sys.exit(main())


if __name__ == "__main__":
    run()
