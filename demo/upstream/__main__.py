"""`python -m demo.upstream`: run the fake upstream as a process of its own until SIGTERM."""

import asyncio
import signal
import ssl
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from demo.pki import write_private
from demo.upstream import FakeUpstream
from demo.upstream.app import HOST


def main() -> None:
    options = _options()
    try:
        asyncio.run(_run(options))
    except OSError as error:
        sys.exit(f"fake upstream: {error.filename or f'port {options.port}'}: {error.strerror}")


async def _run(options: Namespace) -> None:
    upstream = FakeUpstream(
        client_id=options.client_id,
        client_secret=options.client_secret_file.read_text().removesuffix("\n"),
        redirect_uri=options.redirect_uri,
        access_token_lifetime=options.access_token_lifetime,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = upstream.serve(port=options.port, host=options.host, issuer=options.issuer)
    async with serving, _api(upstream, options):
        print(f"fake upstream at {upstream.issuer}", flush=True)
        if options.port_file is not None:
            write_private(options.port_file, upstream.issuer.rpartition(":")[2].encode())
        await stop.wait()


@asynccontextmanager
async def _api(upstream: FakeUpstream, options: Namespace) -> AsyncIterator[None]:
    """The same over TLS, where a certificate is given: real APIs have no other listener."""
    if options.api_credential is None:
        yield
        return
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.api_credential / "tls.crt", options.api_credential / "tls.key")
    async with upstream.serve_api(port=options.api_port, tls=tls):
        yield


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m demo.upstream", description=__doc__)
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--issuer", default="", help="its URL, where a proxy ends TLS")
    parser.add_argument("--port-file", type=Path, help="where to write the port once it answers")
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--client-secret-file", type=Path, required=True)
    parser.add_argument("--redirect-uri", required=True)
    parser.add_argument("--access-token-lifetime", type=int, default=3600, metavar="SECONDS")
    parser.add_argument("--api-port", type=int, default=0, help="of the API over TLS")
    parser.add_argument("--api-credential", type=Path, help="folder of its tls.crt and tls.key")
    return parser.parse_args()


if __name__ == "__main__":
    main()
