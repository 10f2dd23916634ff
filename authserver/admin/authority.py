"""Who runs a command that ends or deletes something, and why: for the audit trail."""

import os
import pwd

from authserver.values import Value


class Authority(Value, frozen=True):
    """`selection` says what the command is about, without names of users."""

    command: str
    reason: str
    os_user: str
    selection: str

    def event(self, **counts: int) -> dict[str, str | int]:
        """The fields of the event `operator_command`."""
        return {
            "command": self.command,
            "reason": self.reason,
            "os_user": self.os_user,
            "selection": self.selection,
            **counts,
        }


def os_user() -> str:
    """Who runs this process, as the operating system knows it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user often has no name
        return f"uid {os.getuid()}"
