"""Where a call goes: which API of the upstream, and whether its policy lets the call pass."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sidecar.apis import Api, UnplacedApi
from sidecar.attach.path_policy import problem_of, slashes_decoded
from sidecar.errors import DESTINATION_NOT_ALLOWED, ApiError

NEVER_SENT: Final = frozenset({"TRACE", "CONNECT"})


class Destination(NamedTuple):
    """A permitted place: `path` is what follows the API's base URL, byte for byte."""

    api: Api
    path: str

    @property
    def target_path(self) -> str:
        """The path for the request line."""
        return base_path(self.api.base_url) + self.path


def find_destination(
    apis: Sequence[Api], method: str, path: str, unplaced: Sequence[UnplacedApi] = ()
) -> Destination | ApiError:
    """The place that `path`, which follows `/upstream/NAME`, names. Pure; nothing is mended.

    `unplaced` are APIs whose base URL is not known for this account.
    """
    if problem := problem_of(path):
        return DESTINATION_NOT_ALLOWED.with_reason(f"path_{problem}")
    if unplaced and _names_unplaced(apis, unplaced, path):
        return DESTINATION_NOT_ALLOWED.with_reason(
            "no_base_url",
            "The upstream's token answer names no base URL for this account that the operator"
            " allows.",
        )
    destination = _named(apis, path)
    if destination is None:
        return DESTINATION_NOT_ALLOWED.with_reason("no_such_api")
    api = destination.api
    if method not in api.methods or method in NEVER_SENT:
        return DESTINATION_NOT_ALLOWED.with_reason(
            "method", "This method is not allowed at this API."
        )
    # Two readings of an encoded slash; a server may have either.
    if not (api.covers(destination.path) and api.covers(slashes_decoded(destination.path))):
        return DESTINATION_NOT_ALLOWED.with_reason("path_outside")
    return destination


def _named(apis: Sequence[Api], path: str) -> Destination | None:
    """The first segment names an API; without such a name, the default one is meant."""
    first, slash, rest = path[1:].partition("/")
    for api in apis:
        if api.name == first and not api.default:
            return Destination(api, slash + rest or "/") if not rest.startswith("/") else None
    return next((Destination(api, path) for api in apis if api.default), None)


def _names_unplaced(apis: Sequence[Api], unplaced: Sequence[UnplacedApi], path: str) -> bool:
    """Whether a path means an API without a base URL, as `_named` would read it.

    Otherwise a path with its name would fall to the default API.
    """
    first = path[1:].partition("/")[0]
    if any(api.name == first and not api.default for api in unplaced):
        return True
    named = any(api.name == first and not api.default for api in apis)
    return not named and any(api.default for api in unplaced)


@lru_cache(maxsize=64)
def base_path(base_url: str) -> str:
    """The path of an API's base URL, without a final slash; empty where it has none."""
    return urlsplit(base_url).path
