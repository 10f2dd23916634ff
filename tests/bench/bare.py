"""`python -m tests.bench.bare`: a bare aiohttp handler that returns fixed bytes.

The yardstick of every figure. With --client it also holds an mTLS client context and session,
as the sidecar must; with --tls it ends mTLS, as the internal listener does. With
BARE_WITHOUT_SYSTEM_CAS=1 it knows the sidecar's trick of not parsing the system's CA bundle.
"""

# ruff: noqa: TID251 - it is started by hand and reads its environment as the sidecar does

import os

if os.environ.get("BARE_WITHOUT_SYSTEM_CAS"):
    os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}

import argparse
import asyncio
import ssl
from pathlib import Path

import aiohttp
from aiohttp import web


async def _serve(options: argparse.Namespace) -> None:
    body = options.body.read_bytes()
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}

    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=body, headers=headers)

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, ssl_context=_server_tls(options)).start()
    if options.client is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(options.client / "tls.crt", options.client / "tls.key")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


def _server_tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls / "tls.crt", options.tls / "tls.key")
    context.load_verify_locations(options.client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    return context


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bare")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--client", type=Path)
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--client-ca", type=Path)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    factory = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(options))


if __name__ == "__main__":
    main()
