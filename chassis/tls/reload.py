"""TLS contexts that are rebuilt and swapped when their files change.

A live context is never patched: a failed load ruins it, and a removed CA would stay trusted. A new
context is built beside the old one and only then takes its place. Where the new files have a fault,
the old context stays in use.
"""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chassis.file_watch import FileWatch, poll_forever
from chassis.logs import Log
from chassis.tls.contexts import CredentialFault
from chassis.tls.self_handshake import Certificate

_log = Log("tls_reload")


class RenewalDeferred(Exception):
    """A credential works, and the one in use goes on for a little longer."""


class ReloadingContext(ssl.SSLContext):
    """An SSLContext that hands every new connection to the context current at that moment.

    asyncio and uvloop both wrap connections through `wrap_bio`, for servers and for clients.
    """

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> "ReloadingContext":
        context = super().__new__(cls, current.protocol)
        context.current = current
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*arguments, **options)


class ContextReloader:
    """A context and the files it was made of; `poll` swaps in a new one when they changed.

    `build` makes a verified context and returns what its certificate carries. It raises
    CredentialFault, or RenewalDeferred unless it is the first call. `files` are polled for changes
    and may be links.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], tuple[ssl.SSLContext, Certificate]],
        files: Sequence[Path],
        *,
        on_reload: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._name, self._build, self._on_reload = name, build, on_reload
        self._watch = FileWatch(lambda: files)
        current, self.certificate = build()
        self.context = ReloadingContext(current)
        self.generation = 1

    def poll(self) -> bool:
        """Whether a new credential took over. A fault keeps the old one and is tried again."""
        if not self._watch.changed():
            return False
        try:
            current, certificate = self._build()
        except RenewalDeferred:
            return False
        except CredentialFault as fault:
            if self._watch.is_new_fault(str(fault)):
                _log.warning("credential_kept", credential=self._name, problem=str(fault))
            self._on_reload(False)  # at each poll: an alert stays on while the fault does
            return False
        self._watch.accept()
        self.context.current, self.certificate = current, certificate
        self.generation += 1
        _log.info("credential_reloaded", credential=self._name, serial=certificate.serial)
        self._on_reload(True)
        return True

    async def watch(self) -> None:
        """Poll until cancelled."""
        await poll_forever(self.poll)
