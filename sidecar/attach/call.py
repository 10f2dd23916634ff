"""One call of the Attach door, as its head alone has it; nothing of it is believed yet."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from chassis.http1.outgoing import RequestHead
from chassis.http1.request import Head, Headers
from chassis.http1.response import ResponseHead
from sidecar.apis import Api
from sidecar.attach.destination import Destination, find_destination
from sidecar.attach.fields import forwarded_fields
from sidecar.attach.links import JsonLinks, Links
from sidecar.attach.parameters import forwarded_parameters, holds
from sidecar.attach.path_policy import problem_of
from sidecar.attach.token_search import TokenSearch
from sidecar.broker import Key, key_of
from sidecar.cached_token import CachedToken
from sidecar.errors import DESTINATION_NOT_ALLOWED, UNKNOWN_UPSTREAM, ApiError
from sidecar.token_request import TokenRequest, is_upstream_name, read_bearer

ROUTE: Final = "/upstream/"
_SCHEMES: Final = ("bearer", "token")
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True, repr=False)
class AttachCall:
    """`origin` is the address that the caller used, `path` what follows the upstream's name.

    `sends_form`: the body holds parameters, which some servers read before those of the query.
    `key` is where memory has its token. `prepared` is what the last token in memory made of the
    call; a program that asks the same again sends the same head.
    """

    head: Head
    origin: str
    upstream: str
    path: str
    query: str | None
    unverified_jwt: str
    sends_form: bool
    key: Key
    prepared: "PreparedCall | None" = None

    def __repr__(self) -> str:
        """Without the JWT and the query."""
        return f"<AttachCall of {self.upstream}>"


class RelayedHead(NamedTuple):
    """The head of an answer, written anew; `headers` are those that the API sent.

    `links` rewrites the body; None where it stays as it is.
    """

    status: int
    headers: Headers
    head: ResponseHead
    bodiless: bool
    links: JsonLinks | None


@dataclass(slots=True, repr=False)
class PreparedCall:
    """A permitted call with a token put in, and what its answers are held to.

    `relayed` is the last answer's head. The client gives the same headers again as long as the API
    repeats a head byte for byte.
    """

    unverified_jwt: str
    token: CachedToken
    api: Api
    request: RequestHead
    links: Links
    json_links: JsonLinks | None
    search: TokenSearch | None
    relayed: RelayedHead | None = None

    def __repr__(self) -> str:
        """Without the token."""
        return f"<PreparedCall of {self.api.name}>"


def read_call(head: Head) -> AttachCall | ApiError:
    """The call that a head makes, whose caller and Host were checked. Nothing is looked up."""
    unverified_jwt = read_bearer(head.headers.get_all("authorization"), _SCHEMES)
    if isinstance(unverified_jwt, ApiError):
        return unverified_jwt
    path, question, query = head.target.partition("?")
    upstream, slash, rest = path.removeprefix(ROUTE).partition("/")
    if not is_upstream_name(upstream):
        return UNKNOWN_UPSTREAM.with_reason("upstream_name")
    path = slash + rest or "/"
    if problem := problem_of(path):
        return DESTINATION_NOT_ALLOWED.with_reason(f"path_{problem}")
    if holds(path, unverified_jwt):
        return DESTINATION_NOT_ALLOWED.with_reason("path_holds_jwt")
    content_type = head.headers.get("content-type") or ""
    return AttachCall(
        head=head,
        origin=f"http://{head.headers.get('host')}",
        upstream=upstream,
        path=path,
        query=query if question else None,
        unverified_jwt=unverified_jwt,
        key=key_of(unverified_jwt, TokenRequest(upstream)),
        sends_form=content_type.partition(";")[0].strip().lower() == _FORM,
    )


def prepare(call: AttachCall, token: CachedToken) -> PreparedCall | ApiError:
    """Decide where the call goes and write its head anew, with the token in place of the JWT."""
    if not token.apis and not token.unplaced:
        return DESTINATION_NOT_ALLOWED.with_reason(
            "no_apis", "Attach is not allowed for this server, or the upstream names no API."
        )
    destination = find_destination(token.apis, call.head.method, call.path, token.unplaced)
    if isinstance(destination, ApiError):
        return destination
    target = _target(call, destination)
    if isinstance(target, ApiError):
        return target
    api = destination.api
    fields = forwarded_fields(call.head.headers, api, call.head.method, call.unverified_jwt)
    if isinstance(fields, ApiError):
        return fields
    access_token = token.access_token
    fields.append(("authorization", f"Bearer {access_token}"))
    try:
        request = RequestHead(call.head.method, target, _authority(api.base_url), fields)
    except ValueError:
        return DESTINATION_NOT_ALLOWED.with_reason("cannot_be_sent")
    links = Links(call.origin, call.upstream, token.apis)
    bases = [each.base_url for each in token.apis]
    return PreparedCall(
        unverified_jwt=call.unverified_jwt,
        token=token,
        api=api,
        request=request,
        links=links,
        json_links=JsonLinks(links, api.link_members, bases) if api.link_members else None,
        search=TokenSearch(access_token) if api.search_answers else None,
    )


def _target(call: AttachCall, destination: Destination) -> str | ApiError:
    path = destination.target_path
    if call.query is None:
        return path
    query = forwarded_parameters(call.query, destination.api, call.unverified_jwt)
    if isinstance(query, ApiError):
        return query
    return f"{path}?{query}" if query or not call.query else path


@lru_cache(maxsize=64)
def _authority(base_url: str) -> str:
    """The value of `Host`: without the default port, as clients of the API itself send it."""
    return base_url.removeprefix("https://").partition("/")[0].removesuffix(":443")
