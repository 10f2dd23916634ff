"""Which authorities vouch for the servers that the authserver calls."""

import asyncio
import ssl
from pathlib import Path
from typing import Final


def verifying_context(authorities: Path | None) -> ssl.SSLContext:
    """Judges certificates alike on every Python version; by the system's authorities for None.

    `ssl.create_default_context` sets these two flags from Python 3.13 on only.
    """
    context = ssl.create_default_context(cafile=authorities)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


class SystemTrust:
    """The system's authorities, read when they are first needed.

    Reading them takes 20 to 50 ms, so it is done in a thread.
    """

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = await asyncio.to_thread(verifying_context, None)
        return self._context


SYSTEM_TRUST: Final = SystemTrust()
"""Shared by everything in a process that calls out."""
