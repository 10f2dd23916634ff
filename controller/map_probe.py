"""Asks an authserver which resource map it has in force: its ops port shows a hash per file."""

import json
from collections.abc import Mapping
from typing import Final, Protocol

import aiohttp

from controller.api.objects import Object, dicts, path

_SECONDS: Final = 3.0
_MAX_BYTES: Final = 64 * 1024
_DEFAULT_PORT: Final = 9090


class MapProbe(Protocol):
    """Asks one pod; None where it does not answer. `HttpMapProbe` is one."""

    async def ask(self, pod: Object) -> Mapping[str, str] | None: ...


class HttpMapProbe:
    """Asks over HTTP, at the pod's own address."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, pod: Object) -> Mapping[str, str] | None:
        """The hash of each file in force, by the file's name; None where the pod does not say."""
        address = path(pod, "status", "podIP")
        if not isinstance(address, str) or not address:
            return None
        host = f"[{address}]" if ":" in address else address
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        try:
            async with self._session.get(
                f"http://{host}:{ops_port(pod)}/resource-map", allow_redirects=False
            ) as response:
                if response.status != 200:
                    return None
                return _read(await response.content.read(_MAX_BYTES))
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def ops_port(pod: Object) -> int:
    """The container port named ops."""
    for container in dicts(path(pod, "spec", "containers")):
        for port in dicts(container.get("ports")):
            if port.get("name") == "ops" and isinstance(port.get("containerPort"), int):
                return int(port["containerPort"])
    return _DEFAULT_PORT


def _read(body: bytes) -> Mapping[str, str] | None:
    try:
        files = json.loads(body)["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
