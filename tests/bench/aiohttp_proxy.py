"""`python -m tests.bench.aiohttp_proxy`: a reverse proxy made of aiohttp's server and client.

What most people would write instead of Attach. It does nothing but pass bodies both ways.
"""

import argparse
import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

_LEFT_OUT: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
)


async def _serve(options: argparse.Namespace) -> None:
    tls = ssl.create_default_context(cafile=options.ca)
    connector = aiohttp.TCPConnector(ssl=tls, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            fields = {n: v for n, v in request.headers.items() if n.lower() not in _LEFT_OUT}
            fields["Authorization"] = "Bearer another"
            async with session.request(
                request.method,
                f"{options.api}{request.rel_url}",
                headers=fields,
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                kept = {n: v for n, v in answer.headers.items() if n.lower() not in _LEFT_OUT}
                response = web.StreamResponse(status=answer.status, headers=kept)
                response.content_length = answer.content_length
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response

        runner = web.ServerRunner(web.Server(handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.aiohttp_proxy")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    logging.disable()  # the load generator hangs up at the end of each round
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
