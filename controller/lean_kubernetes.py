"""Imports kubernetes_asyncio without its generated models and APIs, which nobody here uses.

Its package imports 850 modules: 30 MB, and most of a controller's start. We need four of them and
the readers of kubeconfigs. So the two packages are made here, empty, with their own folders; what
is then imported from them is the library's own code.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_ROOT: Final = "kubernetes_asyncio"
_CLIENT: Final = f"{_ROOT}.client"
_MODELS: Final = f"{_CLIENT}.models"


def load() -> tuple[Any, Any]:
    """The modules `kubernetes_asyncio.client` and `kubernetes_asyncio.config`.

    `client` has ApiClient, Configuration and the exceptions, and no model. Where somebody has
    imported the whole library before, it is that.
    """
    if _ROOT not in sys.modules:
        spec = importlib.util.find_spec(_ROOT)
        if spec is None or spec.origin is None:
            raise ImportError(f"{_ROOT} is not installed")
        folder = Path(spec.origin).parent
        _package(_ROOT, folder)
        client = _package(_CLIENT, folder / "client")
        sys.modules[_MODELS] = client.__dict__["models"] = ModuleType(_MODELS)
        _fill(client)
    return sys.modules[_CLIENT], importlib.import_module(f"{_ROOT}.config")


def _fill(client: ModuleType) -> None:
    """The names that the library's own modules take from its client package."""
    for module in ("exceptions", "configuration", "rest", "api_client"):
        loaded = importlib.import_module(f"{_CLIENT}.{module}")
        public = {k: v for k, v in vars(loaded).items() if not k.startswith("_")}
        client.__dict__.update({module: loaded, **public})


def _package(name: str, folder: Path) -> ModuleType:
    made = ModuleType(name)
    made.__path__ = [str(folder)]
    sys.modules[name] = made
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, made)
    return made
