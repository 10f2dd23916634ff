"""aiohttp's own TLS contexts trust nobody, and a caller brings the authorities."""

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from authserver.clients.safe_fetch import SafeFetcher
from authserver.upstream.contract import Unavailable
from authserver.upstream.trust import SystemTrust
from demo.pki import CertificateAuthority, write_credential
from tests.fakes.web_site import web_site

IMPORTED = """
import json, os
from authserver import lean_aiohttp
lean_aiohttp.load()
from aiohttp import connector
contexts = (connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED)
print(json.dumps([
    [len(context.get_ca_certs()) for context in contexts],
    contexts[0].verify_mode.name,
    {name: text for name, text in os.environ.items() if name.startswith("SSL_CERT_")},
]))
"""


@pytest.mark.parametrize("variables", [{}, {"SSL_CERT_FILE": "authorities.pem"}])
def test_aiohttp_is_imported_without_authorities(tmp_path: Path, variables: dict[str, str]) -> None:
    pem = CertificateAuthority.create("of the system").certificate_pem
    (tmp_path / "authorities.pem").write_bytes(pem)
    variables = {name: str(tmp_path / file) for name, file in variables.items()}
    environment = {"PYTHONPATH": str(Path.cwd())}
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env=environment | variables,
        check=True,
        capture_output=True,
    )
    assert json.loads(ended.stdout) == [[0, 0], "CERT_REQUIRED", variables]


async def test_a_document_is_fetched_where_the_system_vouches_for_its_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority.create("of the system")
    write_credential(tmp_path, authority.issue_server(dns=("localhost",)))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "authorities.pem").write_bytes(authority.certificate_pem)
    async with web_site(serving) as site:
        site.put("/client", b"{}")
        url = f"https://localhost:{site.port}/client"
        with pytest.raises(Unavailable):
            await SafeFetcher(loopback=True, trust=SystemTrust()).fetch(url, max_bytes=100)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
        fetcher = SafeFetcher(loopback=True, trust=SystemTrust())
        assert (await fetcher.fetch(url, max_bytes=100)).body == b"{}"
        assert site.visits == ["/client"]


async def test_the_system_s_authorities_are_read_once() -> None:
    trust = SystemTrust()
    assert await trust.context() is await trust.context()
