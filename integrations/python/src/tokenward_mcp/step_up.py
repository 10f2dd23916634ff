"""A tool learns that a scope is missing after its request has begun: how the client hears of it.

The challenge takes the place of the server's answer, as long as nothing of that has gone out. A
stream of events has its head held back for that until its first event. Where that is too late, the
client's next message gets the challenge.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from typing import Any, Final

from tokenward_mcp.errors import InsufficientScope

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_KEPT_SECONDS: Final = 60.0
_MOST: Final = 1_000


class Challenges:
    """At most one for each JWT, given to its client once. `now` is in seconds, monotonic."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._pending: OrderedDict[bytes, tuple[InsufficientScope, float]] = OrderedDict()

    def put(self, jwt: str, refusal: InsufficientScope) -> None:
        self._pending[_key(jwt)] = (refusal, self._now() + _KEPT_SECONDS)
        while len(self._pending) > _MOST:
            self._pending.popitem(last=False)

    def take(self, jwt: str) -> InsufficientScope | None:
        """The challenge, and forget it."""
        refusal, until = self._pending.pop(_key(jwt), (None, 0.0))
        return refusal if self._now() < until else None


class Answer:
    """What the server sends, or a challenge where one has come before it.

    `refuse` answers with a challenge; `taken` gives the one that there is.
    """

    def __init__(
        self,
        send: Send,
        taken: Callable[[], InsufficientScope | None],
        refuse: Callable[[InsufficientScope, Send], Awaitable[None]],
    ) -> None:
        self._send, self._taken, self._refuse = send, taken, refuse
        self._head: MutableMapping[str, Any] | None = None
        self._replaced = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take the place of the server's `send`."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            refusal = self._taken()
            if refusal is not None:
                self._replaced = True
                await self._refuse(refusal, self._send)
                return
            await self._send(head)
        await self._send(message)


def _key(jwt: str) -> bytes:
    return sha256(jwt.encode()).digest()
