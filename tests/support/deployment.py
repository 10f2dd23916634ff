"""A whole authserver in this process, on real sockets, with real TLS, SQLite and upstream.

Only the clock is ours. Everything is reached through the doors that clients, browsers and
sidecars use; tests look into storage only to ask what a thief would find there.
"""

import base64
import hashlib
import json
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authserver.app import Authserver
from authserver.config.loader import load
from authserver.storage.audit_keys import AuditKeys
from authserver.storage.engines.open import open_database
from authserver.upstream.http_client import UpstreamHttp
from chassis.http1.listener import Listener
from demo.browser import Browser, Page
from demo.pki import CertificateAuthority, Issued, write_credential
from demo.upstream import USERS, FakeUpstream
from tests.fakes.clock import ManualClock
from tests.support.made_once import authorities, internal_tls, put_migrated

TRUST_DOMAIN = "example.org"
NOTES, TASKS = "https://notes.example.com/mcp", "https://tasks.example.com/mcp"
CALLBACK = "http://127.0.0.1:9999/callback"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT = "urn:ietf:params:oauth:token-type:jwt"


@dataclass(frozen=True)
class Answer:
    """What an HTTP endpoint said."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> dict[str, Any]:
        found = json.loads(self.text)
        assert isinstance(found, dict)
        return found


@dataclass
class Pkce:
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass
class Deployment:
    """A running authserver and its surroundings."""

    folder: Path
    clock: ManualClock
    upstream: FakeUpstream
    server: Authserver
    issuer: str
    internal_url: str
    server_ca: CertificateAuthority
    workload_ca: CertificateAuthority
    http: aiohttp.ClientSession

    # What a client does.

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        """A request to the public listener; redirects are not followed."""
        url = path if path.startswith("http") else f"{self.issuer}{path}"
        async with self.http.request(method, url, allow_redirects=False, **options) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def reconfigure(self, **changes: object) -> None:
        """Change the configuration file and reload it, as a running authserver does."""
        file = self.folder / "authserver.yaml"
        configuration = yaml.safe_load(file.read_text()) | changes
        file.write_text(yaml.safe_dump(configuration))
        await self.server.reload(load(file))

    async def register(self, **metadata: object) -> dict[str, Any]:
        asked = {
            "client_name": "Test client",
            "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
        }
        answer = await self.call("POST", "/oauth/register", json=asked | metadata)
        assert answer.status == 201, answer.text
        return answer.json()

    def authorize_url(self, client_id: str, pkce: Pkce, /, **changes: str | None) -> str:
        """An authorization request; a change to None leaves the parameter out."""
        asked: dict[str, str | None] = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "resource": NOTES,
            "scope": "mcp",
            "state": "client-state",
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
        }
        asked |= changes
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return f"{self.issuer}/oauth/authorize?{query}"

    async def code(
        self, client_id: str, pkce: Pkce, user: str = "alice", **changes: str | None
    ) -> str:
        """Walk the pages as `user` and allow; the code the client gets."""
        async with Browser(leave_at=CALLBACK) as browser:
            answer = await walk(browser, self.authorize_url(client_id, pkce, **changes), user)
        assert "code" in answer, answer
        return answer["code"]

    async def token(self, **fields: str) -> Answer:
        return await self.call("POST", "/oauth/token", data=fields)

    async def redeem(self, client_id: str, code: str, pkce: Pkce, /, **changes: str) -> Answer:
        fields = {
            "grant_type": "authorization_code",
            "client_id": client_id,
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": pkce.verifier,
        }
        return await self.token(**(fields | changes))

    async def refresh(self, client_id: str, refresh_token: str, **more: str) -> Answer:
        return await self.token(
            grant_type="refresh_token", client_id=client_id, refresh_token=refresh_token, **more
        )

    async def signed_in(self, user: str = "alice", **changes: str | None) -> "SignedIn":
        """A fresh client with tokens of `user`."""
        client_id, pkce = (await self.register())["client_id"], Pkce()
        code = await self.code(client_id, pkce, user, **changes)
        answer = await self.redeem(client_id, code, pkce)
        assert answer.status == 200, answer.text
        return SignedIn(client_id, **answer.json())

    # What a sidecar does.

    def svid(self, workload: str, trust_domain: str = TRUST_DOMAIN) -> Issued:
        namespace, name = workload.split("/")
        return self.workload_ca.issue_svid(
            f"spiffe://{trust_domain}/ns/{namespace}/mcpserver/{name}"
        )

    def tls(self, issued: Issued | None) -> ssl.SSLContext:
        """A client context that presents `issued`, or no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.server_ca.certificate_pem.decode())
        if issued is not None:
            folder = self.folder / secrets.token_hex(4)
            folder.mkdir()
            write_credential(folder, issued)
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        return context

    async def exchange(self, workload: str, jwt: str, **changes: str | None) -> Answer:
        """One exchange over a connection of its own, as `workload`."""
        return await self.exchange_with(self.tls(self.svid(workload)), jwt, **changes)

    async def exchange_with(self, tls: ssl.SSLContext, jwt: str, **changes: str | None) -> Answer:
        fields: dict[str, str | None] = {
            "grant_type": _EXCHANGE,
            "subject_token": jwt,
            "subject_token_type": _JWT,
        }
        fields |= changes
        body = {name: value for name, value in fields.items() if value is not None}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http,
            http.post(f"{self.internal_url}/internal/token-exchange", data=body) as answer,
        ):
            return Answer(answer.status, answer.headers, await answer.text())

    def stored_bytes(self) -> bytes:
        """Everything a thief of the database would hold."""
        return b"".join(file.read_bytes() for file in self.folder.glob("tokenward.db*"))


@dataclass(frozen=True)
class SignedIn:
    """A client and the answer of its token request."""

    client_id: str
    access_token: str
    token_type: str
    expires_in: int
    scope: str
    refresh_token: str = ""
    id_token: str = ""
    refresh_token_timeout: int = 0
    authorization_expires_in: int = 0


async def walk(browser: Browser, url: str, user: str, decision: str = "allow") -> dict[str, str]:
    """Answer our consent page, log in upstream as `user`; the parameters the client gets."""
    consent = await browser.open(url)
    page = await browser.submit(consent, press=("decision", decision))
    if page.status is not None:
        page = await log_in(browser, page, user)
    assert page.status is None, page.text
    return dict(parse_qsl(urlsplit(page.url).query))


async def log_in(browser: Browser, page: Page, user: str) -> Page:
    return await browser.submit(page, {"username": user, "password": USERS[user].password})


@asynccontextmanager
async def deployed(
    folder: Path,
    *,
    access_token_lifetime: int = 3600,
    clock: ManualClock | None = None,
    **changes: object,
) -> AsyncIterator[Deployment]:
    """Start everything on free ports of 127.0.0.1; `changes` replace configuration members."""
    clock = clock or ManualClock()
    async with AsyncExitStack() as stack:
        public = _socket()
        issuer = f"http://127.0.0.1:{public.getsockname()[1]}"
        upstream = FakeUpstream(
            client_id="tokenward",
            client_secret="upstream secret canary",
            redirect_uri=f"{issuer}/oauth/callback/acme",
            access_token_lifetime=access_token_lifetime,
            now=clock,
        )
        await stack.enter_async_context(upstream.serve())
        server_ca, workload_ca, server_certificate = authorities()
        write_material(folder, server_ca, workload_ca, server_certificate=server_certificate)
        configuration = configuration_of(folder, issuer, upstream.issuer) | changes
        (folder / "authserver.yaml").write_text(yaml.dump(configuration, Dumper=yaml.CSafeDumper))
        settings = load(folder / "authserver.yaml")
        await put_migrated(folder / "tokenward.db")
        database = await open_database(settings.storage.url, settings.storage.password)
        stack.push_async_callback(database.close)
        http = await stack.enter_async_context(UpstreamHttp())
        audit_key = await AuditKeys(database, settings.keyring()).key()
        server = Authserver(settings, database, http, clock, audit_key=audit_key)
        stack.push_async_callback(server.drain)
        tls = internal_tls(settings.listeners.internal)
        await _serve(stack, web.AppRunner(server.public(), access_log=None), public)
        listener = Listener("internal", "127.0.0.1", 0, server.internal().server(), tls)
        internal = await listener.bind(drain_seconds=60.0)
        stack.push_async_callback(internal.cleanup)
        client = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        )
        yield Deployment(
            folder,
            clock,
            upstream,
            server,
            issuer,
            f"https://127.0.0.1:{internal.port}",
            server_ca,
            workload_ca,
            client,
        )


def _socket() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def _serve(stack: AsyncExitStack, runner: web.BaseRunner, bound: socket.socket) -> None:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, bound).start()


def write_material(
    folder: Path,
    server_ca: CertificateAuthority,
    workload_ca: CertificateAuthority,
    *,
    server_certificate: Issued | None = None,
) -> None:
    """Certificates, keys and secrets, as files."""
    write_credential(folder, server_certificate or server_ca.issue_server())
    (folder / "workloads.pem").write_bytes(workload_ca.certificate_pem)
    (folder / "k1").write_bytes(base64.b64encode(secrets.token_bytes(32)))
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "signing.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (folder / "upstream-secret").write_text("upstream secret canary\n")


def configuration_of(folder: Path, issuer: str, upstream_issuer: str) -> dict[str, object]:
    """A complete configuration, with two resources of two workloads."""

    def resource(url: str, name: str) -> dict[str, object]:
        workload = {"namespace": "mcp-servers", "name": name}
        return {"resource": url, "workload": workload, "upstreams": ["acme"], "scopes": ["mcp"]}

    return {
        "issuer": issuer,
        "trustDomain": TRUST_DOMAIN,
        "listeners": {
            "public": {"host": "127.0.0.1", "port": 0},
            "internal": {
                "host": "127.0.0.1",
                "port": 0,
                "certFile": "tls.crt",
                "keyFile": "tls.key",
                "clientCAFile": "workloads.pem",
            },
            "ops": {"host": "127.0.0.1", "port": 0},
        },
        "storage": {"url": f"sqlite://{folder}/tokenward.db"},
        "encryptionKeys": [{"id": "k1", "file": "k1"}],
        "signingKeys": [{"file": "signing.pem", "algorithm": "ES256"}],
        "upstreams": [
            {
                "name": "acme",
                "type": "oidc",
                "issuer": upstream_issuer,
                "clientId": "tokenward",
                "clientSecretFile": "upstream-secret",
                "scopes": ["openid"],
            }
        ],
        "resources": [resource(NOTES, "notes"), resource(TASKS, "tasks")],
        "allowedWorkloads": {"namespaces": ["mcp-servers"], "names": ["*"]},
        "limits": {"registrationsPerSourcePerMinute": 1000},
    }
