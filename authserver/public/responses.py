"""The kinds of answers the public listener gives."""

import json
from typing import Any

from aiohttp import web

from authserver.oauth.errors import ProtocolError
from authserver.public.pages import CONTENT_SECURITY_POLICY


async def preflight(request: web.Request) -> web.Response:
    return web.Response(status=204)


def see_other(location: str) -> web.Response:
    # 303: a browser that posted our form must not post it again to where it is sent.
    return web.Response(status=303, headers={"Location": location})


def page(html: str, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        text=html,
        content_type="text/html",
        headers={
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Frame-Options": "DENY",
        },
    )


def image(body: bytes, media_type: str, *, cache: str) -> web.Response:
    """An image of ours. Opened by itself it is a document, and gets the policy of our pages."""
    return web.Response(
        body=body,
        content_type=media_type,
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": cache},
    )


def refused(refusal: ProtocolError) -> web.Response:
    response = json_answer(refusal.members(), status=refusal.status_code)
    response.headers.update(refusal.headers)
    return response


def plain_refusal(http: web.HTTPException) -> web.Response:
    """What the router or the body's reader refused, without its words."""
    response = json_answer({"error": http.reason.lower().replace(" ", "_")}, status=http.status)
    if "Allow" in http.headers:
        response.headers["Allow"] = http.headers["Allow"]
    return response


def json_answer(
    body: dict[str, Any], *, status: int = 200, cache: str = "no-store"
) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/json",
        headers={"Cache-Control": cache},
    )
