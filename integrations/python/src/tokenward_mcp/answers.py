"""The two HTTP answers of the middleware: a refusal, and the RFC 9728 document."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from tokenward_mcp.errors import AmbiguousRequest, TokenError, unavailable
from tokenward_mcp.sidecar import METADATA_PATH, Sidecar

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# What MCP clients act upon. Any other refusal is a mistake of this server or its operator.
_RELAYED: Final = frozenset({401, 403, 429, 503})
_FOR_ANYONE: Final = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET",
    "access-control-allow-headers": "*",
}


async def refuse(refusal: TokenError, send: Send) -> None:
    """Answer with the sidecar's challenge and `Retry-After`, and its words as JSON."""
    theirs = refusal.status in _RELAYED or isinstance(refusal, AmbiguousRequest)
    status = refusal.status if theirs else 500
    headers = [("cache-control", "no-store")]
    if status == 401:
        headers += [("www-authenticate", text) for text in refusal.challenges or ("Bearer",)]
    elif status == 403:
        headers += [("www-authenticate", text) for text in refusal.challenges]
    if refusal.retry_after is not None:
        headers.append(("retry-after", refusal.retry_after))
    await _send(send, status, headers, json.dumps(refusal.members).encode())


async def serve_metadata(sidecar: Sidecar, scope: Mapping[str, Any], send: Send) -> bool:
    """Answer for the document's paths; False for every other request.

    The paths are those of RFC 9728 section 3.1: the plain one, and the one with the resource's
    path behind it.
    """
    if scope["method"] not in ("GET", "HEAD", "OPTIONS") or not _may_be_ours(scope["path"]):
        return False
    try:
        document = await sidecar.metadata()
        if document is None or scope["path"] not in _paths_of(document):
            return False
    except TokenError as refusal:
        await refuse(refusal, send)
        return True
    if scope["method"] == "OPTIONS":
        await _send(send, 204, list(_FOR_ANYONE.items()), b"")
    else:
        # The server drops the body of an answer to HEAD.
        await _send(send, 200, list(_FOR_ANYONE.items()), document)
    return True


def _may_be_ours(path: str) -> bool:
    return path == METADATA_PATH or path.startswith(f"{METADATA_PATH}/")


def _paths_of(document: bytes) -> set[str]:
    try:
        resource = json.loads(document)["resource"]
        inserted = urlsplit(resource).path if isinstance(resource, str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        inserted = None
    if inserted is None:
        raise unavailable("The sidecar's answer is no RFC 9728 document.")
    return {METADATA_PATH, METADATA_PATH + ("" if inserted == "/" else inserted)}


async def _send(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    described = [("content-type", "application/json")] if body else []
    if status != 204:
        described.append(("content-length", str(len(body))))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in [*described, *headers]],
        }
    )
    await send({"type": "http.response.body", "body": body})
