"""Which user and client each session of the app belongs to (MCP, "Session Management").

A binding is made only from an answer of the app to an accepted request. A request with an id that
is bound to nobody, or to somebody else, is not forwarded.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

MAX_BINDINGS: Final = 100_000
MAX_ID_BYTES: Final = 512


class Holder(NamedTuple):
    """The user and the client that a session was given to."""

    sub: str
    client_id: str

    def __repr__(self) -> str:
        return "<Holder>"


class SessionBindings:
    """Ids of sessions and their holders; the id that was not used for longest goes first."""

    def __init__(self, most: int = MAX_BINDINGS) -> None:
        self._holders: OrderedDict[str, Holder] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._holders)

    def bind(self, session_id: str, holder: Holder) -> bool:
        """Give an id to `holder`. False where somebody else has it: then nothing changes."""
        known = self._holders.setdefault(session_id, holder)
        self._holders.move_to_end(session_id)
        if len(self._holders) > self._most:
            self._holders.popitem(last=False)
        return known == holder

    def belongs_to(self, session_id: str, holder: Holder) -> bool:
        """Whether the id was given to this very user and client."""
        if self._holders.get(session_id) != holder:
            return False
        self._holders.move_to_end(session_id)
        return True

    def unbind(self, session_id: str) -> None:
        """Forget an id; one that is unknown is no error."""
        self._holders.pop(session_id, None)
