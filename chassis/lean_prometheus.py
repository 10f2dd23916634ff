"""Imports prometheus_client without its HTTP servers and push clients, which nobody here uses.

They bring `http.server`, `urllib.request`, `wsgiref` and `email`: 3 MB, and a fifth of the
sidecar's start. `chassis.metrics_text` renders the metrics instead.
"""

import sys
from types import ModuleType
from typing import Final, NoReturn

_EXPOSITION: Final = "prometheus_client.exposition"


def load() -> None:
    """Import it, once and before anybody else does. Later it does nothing.

    Only for a process of its own: there, what the package exports of that module cannot be called.
    """
    if "prometheus_client" in sys.modules:
        return
    absent = ModuleType(_EXPOSITION)
    absent.__dict__["__getattr__"] = lambda _: _left_out
    sys.modules[_EXPOSITION] = absent
    try:
        import prometheus_client  # noqa: F401 - so that the package's own imports are over
    finally:
        del sys.modules[_EXPOSITION]


def _left_out(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("this process was started without prometheus_client.exposition")
