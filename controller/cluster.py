"""The API server, as dicts: the only user of kubernetes_asyncio.

That library finds and refreshes the credentials and keeps the connections. Everything else is a
path and JSON: its typed models drop members that they do not know, a dict given to its `patch_…`
goes out as a JSON patch, and no call has a time limit of its own.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp

from controller import lean_kubernetes
from controller.api.kinds import Kind, kind_of
from controller.api.objects import Key, Object, key_of
from controller.reconcile.plan import MANAGER

_client, _config = lean_kubernetes.load()

_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_OBJECTS: Final = "application/json"
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE: Final = 500

_CALL_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 5.0
# An API server sends a bookmark about once a minute. Silence beyond this is a dead connection.
_SILENCE_SECONDS: Final = 100.0
_WATCH_SECONDS: Final = 290


class ApiError(Exception):
    """The API server refused, or could not be asked (status 0). The text holds no object."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}"[:500])
        self.status, self.reason = status, reason

    @property
    def conflict(self) -> bool:
        """The object exists already, or was changed meanwhile."""
        return self.status == 409

    @property
    def forbidden(self) -> bool:
        return self.status == 403

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def gone(self) -> bool:
        """The resource version is older than what the API server keeps."""
        return self.status == 410


class NoCluster(Exception):
    """There is neither a ServiceAccount nor a kubeconfig; the text says why."""


class Cluster:
    """One API server. Every call has a time limit and raises ApiError."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.calls = 0

    @classmethod
    async def connect(cls) -> "Cluster":
        """As the pod's ServiceAccount, or by the kubeconfig of a developer. Raises NoCluster."""
        configuration = _client.Configuration()
        unusable = _config.ConfigException
        try:
            try:
                _config.load_incluster_config(client_configuration=configuration)
            except unusable:
                await _config.load_kube_config(client_configuration=configuration)
        except (unusable, OSError) as missing:
            raise NoCluster(str(missing)) from None
        return cls(_client.ApiClient(configuration))

    async def close(self) -> None:
        await self._api.close()

    async def get(self, kind: Kind, key: Key) -> Object | None:
        """The object, or None where there is none."""
        try:
            return await self._json("GET", kind.path(*key))
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str = "", **selectors: str
    ) -> tuple[list[dict[str, Any]], str]:
        """All objects and the resource version of the list; selectors as in the API."""
        answer: list[dict[str, Any]] = []
        accept = _METADATA_LIST if kind.metadata_only else _OBJECTS
        query = {"limit": str(_PAGE), **selectors}
        while True:
            page = await self._json("GET", kind.path(namespace), query=query, accept=accept)
            answer += page.get("items") or []
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return answer, str(meta.get("resourceVersion", ""))
            query["continue"] = meta["continue"]

    async def watch(
        self, kind: Kind, resource_version: str, namespace: str = "", **selectors: str
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Changes since a resource version, until the API server or silence ends the stream.

        Yields the event's type (ADDED, MODIFIED, DELETED, BOOKMARK) and its object. Raises
        ApiError, which is `gone` where a new list is needed.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(_WATCH_SECONDS),
            **selectors,
        }
        limit = aiohttp.ClientTimeout(
            total=None, connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
        )
        accept = _METADATA if kind.metadata_only else _OBJECTS
        response = await self._send(
            "GET", kind.path(namespace), query=query, limit=limit, accept=accept
        )
        try:
            await _raise_for(response)
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error_of(event["object"], 500)
                yield event["type"], event["object"]
        except TimeoutError:
            return  # silent: half-open, or nothing changed; watching again costs one request
        except (aiohttp.ClientError, OSError, ValueError, KeyError) as broken:
            raise ApiError(0, "Broken", type(broken).__name__) from None
        finally:
            response.close()

    async def apply(self, wanted: Object) -> Object:
        """Server-side apply of our fields; another manager of the same fields loses them."""
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._json(
            "PATCH", _path(wanted), query=query, body=wanted, content_type=_APPLY
        )

    async def create(self, wanted: Object) -> Object:
        """Make the object. Raises ApiError, `conflict` where there is one of the name."""
        kind, key = kind_of(wanted), key_of(wanted)
        query = {"fieldManager": MANAGER}
        return await self._json("POST", kind.path(key.namespace), query=query, body=wanted)

    async def update(self, wanted: Object) -> Object:
        """Replace it. Raises ApiError, `conflict` where it changed since it was read."""
        return await self._json("PUT", _path(wanted), query={"fieldManager": MANAGER}, body=wanted)

    async def patch(
        self, kind: Kind, key: Key, change: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        """JSON merge patch (RFC 7386); `subresource` such as status."""
        where = kind.path(*key) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": MANAGER}
        return await self._json("PATCH", where, query=query, body=change, content_type=_MERGE)

    async def delete(self, kind: Kind, key: Key, uid: str) -> None:
        """Delete this very object; nothing where it is gone already."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._json("DELETE", kind.path(*key), body=body)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind."""
        try:
            answer = await self._json("GET", kind.prefix)
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return any(one.get("name") == kind.plural for one in answer.get("resources") or ())

    async def _json(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = _OBJECTS,
    ) -> dict[str, Any]:
        limit = aiohttp.ClientTimeout(total=_CALL_SECONDS, connect=_CONNECT_SECONDS)
        response = await self._send(method, where, query, body, content_type, limit, accept)
        try:
            await _raise_for(response)
            answer: dict[str, Any] = json.loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as broken:
            raise ApiError(0, "Broken", type(broken).__name__) from None
        finally:
            response.release()
        return answer

    async def _send(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        limit: aiohttp.ClientTimeout | None = None,
        accept: str = _OBJECTS,
    ) -> aiohttp.ClientResponse:
        self.calls += 1
        try:
            response: aiohttp.ClientResponse = await self._api.call_api(
                where,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": accept, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=limit,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as unreachable:
            raise ApiError(0, "Unreachable", type(unreachable).__name__) from None
        return response


def _path(wanted: Object) -> str:
    return kind_of(wanted).path(*key_of(wanted))


async def _raise_for(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    try:
        status = json.loads(await response.read())
    except ValueError:
        status = {}
    raise _error_of(status if isinstance(status, dict) else {}, response.status)


def _error_of(status: Mapping[str, Any], code: int) -> ApiError:
    return ApiError(
        int(status.get("code") or code),
        str(status.get("reason") or "Unknown"),
        str(status.get("message") or ""),
    )
