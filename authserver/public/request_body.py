"""Reading a public request's parameters: one media type, one encoding, a bound on time."""

import asyncio
from typing import Final

from aiohttp import web

from authserver.oauth.errors import InvalidRequest, UnsupportedMediaType
from authserver.oauth.parsing import form_fields, query_fields

# RFC 8707 section 2: the only parameter of OAuth that may come several times.
_REPEATABLE: Final = frozenset({"resource"})
# How long a body may take to arrive.
BODY_SECONDS: Final = web.AppKey("body_seconds", float)
DEFAULT_BODY_SECONDS: Final = 15.0
_FORM: Final = "application/x-www-form-urlencoded"


def check_one_authorization(request: web.Request) -> None:
    if len(request.headers.getall("Authorization", [])) > 1:
        raise InvalidRequest("two_authorization_headers", "two Authorization headers")


def query_of(request: web.Request) -> dict[str, str]:
    return query_fields(request.rel_url.raw_query_string, repeatable=_REPEATABLE)


async def form_of(request: web.Request) -> dict[str, str]:
    if request.content_type != _FORM:
        raise UnsupportedMediaType("media_type", f"the body must be {_FORM}")
    if request.rel_url.raw_query_string:
        raise InvalidRequest("query_string", "parameters belong into the body")
    return form_fields(await body_of(request), repeatable=_REPEATABLE)


async def body_of(request: web.Request) -> bytes:
    if "Content-Encoding" in request.headers:
        raise UnsupportedMediaType("content_encoding", "the body must not be encoded")
    try:
        async with asyncio.timeout(request.app[BODY_SECONDS]):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
