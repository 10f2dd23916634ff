"""Upstreams and the public address, asked as clients ask them; nothing is sent but GET requests."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

from authserver.admin.doctor.finding import Finding
from authserver.config.exchanged_upstreams import ConfiguredUpstream
from authserver.config.settings import Settings
from authserver.config.upstreams import OAuth2Upstream, OidcUpstream
from authserver.tokens.signing_keys import SigningKeys
from authserver.upstream.contract import UpstreamFailure
from authserver.upstream.discovery import Discovery
from authserver.upstream.http_client import UpstreamHttp
from chassis.clock import Clock
from chassis.http1.client import Client, Host, ServerResponse
from chassis.http1.limits import Limits
from chassis.http1.no_response import NoResponse, Untrusted
from chassis.utc import http_date

_SECONDS: Final = 5.0
_SKEW_SECONDS: Final = 60
_LIMITS: Final = Limits(body_bytes=256 * 1024, connections=1)
_WELL_KNOWN: Final = "/.well-known/oauth-authorization-server"


async def network_findings(
    settings: Settings, http: UpstreamHttp, clock: Clock
) -> AsyncIterator[Finding]:
    for index, upstream in enumerate(settings.upstreams):
        async for finding in _upstream(f"upstreams[{index}]", upstream, http, clock):
            yield finding
    async for finding in _public(settings, clock):
        yield finding


async def _upstream(
    place: str, upstream: ConfiguredUpstream, http: UpstreamHttp, clock: Clock
) -> AsyncIterator[Finding]:
    client = http.client(upstream.ca_file, upstream.proxy)
    try:
        if isinstance(upstream, OidcUpstream):
            await Discovery(upstream.issuer, client, clock).provider()
        elif isinstance(upstream, OAuth2Upstream):
            await client.get(upstream.token_endpoint)
        elif upstream.exchange.token_endpoint is not None:
            await client.get(upstream.exchange.token_endpoint)
    except UpstreamFailure as failure:
        if failure.reason == "unreadable_answer" and not isinstance(upstream, OidcUpstream):
            return  # it answers, if not with JSON
        detail = " ".join(part for part in (failure.reason, failure.member, failure.detail) if part)
        yield Finding(
            "upstream_unusable", place, f"{upstream.name} cannot be used: {detail}",
            "look at the address, the network policy, `proxy` and `caFile`"
            if failure.reason != "discovery_not_of_this_issuer"
            else "write `issuer` exactly as the upstream's own metadata does",
        )  # fmt: skip


async def _public(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """The metadata document at the issuer's public name, and the keys that it serves."""
    issuer = settings.issuer
    path = f"{_WELL_KNOWN}{urlsplit(issuer).path.removesuffix('/')}"
    answer = await _get(issuer, path)
    if isinstance(answer, Finding):
        yield answer
        return
    document = _document(answer)
    if document is None or document.get("issuer") != issuer:
        yield Finding(
            "issuer_is_somebody_else", "issuer",
            f"what answers at {issuer} is no authserver with this issuer (status {answer.status})",
            "let the ingress send this host, with every path, to the public listener",
        )  # fmt: skip
        return
    served = _moment(answer.headers.get("date") or "")
    if served is not None and abs(served - clock()) > _SKEW_SECONDS:
        yield Finding(
            "clock_differs_from_public", "clock",
            f"this machine's clock and that behind {issuer} differ by more than a minute",
            "let both follow the same time servers",
        )  # fmt: skip
    async for finding in _keys(settings, str(document.get("jwks_uri", ""))):
        yield finding


async def _keys(settings: Settings, jwks_uri: str) -> AsyncIterator[Finding]:
    answer = await _get(jwks_uri, urlsplit(jwks_uri).path)
    if isinstance(answer, Finding):
        yield answer
        return
    keys = (_document(answer) or {}).get("keys")
    served = {key.get("kid") for key in keys if isinstance(key, dict)} if keys else set()
    ours = SigningKeys([key.signing_key() for key in settings.signing_keys]).jwks()["keys"]
    if any(key["kid"] not in served for key in ours):
        yield Finding(
            "signing_key_not_served", "signingKeys",
            "the public JWKS lacks a key of this configuration: clients refuse what it signed",
            "give all replicas the same `signingKeys`, and look for caches before them",
        )  # fmt: skip


async def _get(url: str, path: str) -> ServerResponse | Finding:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    context = ssl.create_default_context() if secure else None
    if parts.hostname is None:
        return Finding("issuer_unreachable", "issuer", "its metadata names no address", "report it")
    host = Host(parts.hostname, parts.port or (443 if secure else 80))
    client = Client(host, context, limits=_LIMITS, connect_seconds=_SECONDS)
    try:
        async with asyncio.timeout(2 * _SECONDS):
            return await client.request("GET", path, (("Accept", "application/json"),))
    except Untrusted:
        return Finding(
            "issuer_untrusted", "issuer", f"the certificate of {parts.netloc} is not trusted here",
            "give the public name a certificate of a CA that clients trust, for that very name",
        )  # fmt: skip
    except (NoResponse, TimeoutError):
        return Finding(
            "issuer_unreachable", "issuer", f"nothing answers at {parts.netloc}",
            "look at DNS, the ingress and the Service; from inside a cluster, at hairpin routing",
        )  # fmt: skip
    finally:
        client.close()


def _document(answer: ServerResponse) -> dict[str, Any] | None:
    try:
        members = json.loads(answer.body)
    except ValueError:
        return None
    return members if answer.status == 200 and isinstance(members, dict) else None


def _moment(date: str) -> float | None:
    try:
        return http_date(date)
    except ValueError:
        return None
