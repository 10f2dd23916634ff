"""Imports aiohttp without the system's authorities.

It reads them twice while it is imported, a tenth of the authserver's start, for calls that name no
TLS context. Each call of ours names one. Without authorities, one that does not is refused.
"""

import os
import sys


def load() -> None:
    """Import it, before anybody else does. Later it does nothing."""
    if "aiohttp" in sys.modules:
        return
    environment = os.environ  # noqa: TID251 - OpenSSL reads these two from it
    nowhere = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    before = {name: environment[name] for name in nowhere if name in environment}
    environment.update(nowhere)
    try:
        import aiohttp  # noqa: F401 - for the contexts that it makes now
    finally:
        for name in nowhere:
            del environment[name]
        environment.update(before)
