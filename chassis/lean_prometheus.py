"""Imports prometheus_client without its HTTP servers and push clients, which nobody here uses.

They bring `http.server`, `urllib.request`, `wsgiref` and `email`: 3 MB, and some 30 ms.
`chassis.metrics_text` renders the metrics instead. The collectors that describe the interpreter are
left out too: we register none of them. So is what several processes share metrics with
(`PROMETHEUS_MULTIPROC_DIR`).
"""

import sys
from types import ModuleType
from typing import Final, NoReturn

_LEFT_OUT: Final = (
    "prometheus_client.exposition",
    "prometheus_client.gc_collector",
    "prometheus_client.mmap_dict",
    "prometheus_client.platform_collector",
)


def load() -> None:
    """Import it, once and before anybody else does. Later it does nothing.

    Only for a process of its own: what the package exports of those modules cannot be called there.
    """
    if "prometheus_client" in sys.modules:
        return
    for name in _LEFT_OUT:
        absent = ModuleType(name)
        absent.__dict__["__getattr__"] = lambda _: _left_out
        sys.modules[name] = absent
    try:
        import prometheus_client  # noqa: F401 - so that the package's own imports are over
    finally:
        for name in _LEFT_OUT:
            del sys.modules[name]


def _left_out(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("this process was started without this part of prometheus_client")
