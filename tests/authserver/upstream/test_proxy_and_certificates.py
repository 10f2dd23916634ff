"""The way to an upstream: through the operator's proxy, and to certificates that may be refused."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.pki import CertificateAuthority, Issued, write_credential
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.upstream import HostileUpstream
from tests.support.deployment import Deployment, Pkce, SignedIn, deployed
from tests.support.sign_in_steps import ask, consent, query_of
from tests.support.workloads import NOTES_SERVER, UNLIMITED

# No resolver knows it: whoever reaches it went through the proxy.
HOST = "hub.upstream.invalid"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Far:
    """A deployment whose upstream is known by a name that only its proxy knows."""

    world: Deployment
    upstream: HostileUpstream
    proxy: ConnectProxy
    context: ssl.SSLContext
    folder: Path

    def shows(self, issued: Issued) -> None:
        """The upstream's certificate from now on."""
        write_credential(self.folder, issued)
        self.context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")

    async def failed_sign_in(self) -> dict[str, str]:
        """The answer that the client gets after the user has come back from the upstream."""
        client_id, pkce = (await self.world.register())["client_id"], Pkce()
        asked = await ask(self.world, self.world.authorize_url(client_id, pkce))
        there = await consent(self.world, asked)
        back = await self.world.call("GET", there.headers["Location"])
        headers = {"Cookie": asked.cookie}
        answer = await self.world.call("GET", back.headers["Location"], headers=headers)
        return query_of(answer.headers["Location"])

    async def exchange(self, user: SignedIn) -> Any:
        return await self.world.exchange(NOTES_SERVER, user.access_token)


def configuration(upstream: HostileUpstream, ca_file: Path, proxy: str | None) -> dict[str, Any]:
    far = f"https://{HOST}:8443"
    members: dict[str, Any] = {
        "name": "acme",
        "type": "oauth2",
        "authorizationEndpoint": f"{upstream.issuer}/authorize",  # the browser goes there by itself
        "tokenEndpoint": f"{far}/token",
        "userinfoEndpoint": f"{far}/userinfo",
        "revocationEndpoint": f"{far}/revoke",
        "subjectField": "sub",
        "clientId": "tokenward",
        "clientSecretFile": "upstream-secret",
        "caFile": str(ca_file),
    }
    return members | ({"proxy": proxy} if proxy is not None else {})


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("upstream")


@asynccontextmanager
async def far(folder: Path, authority: CertificateAuthority) -> AsyncIterator[Far]:
    credential = folder / "upstream"
    credential.mkdir()
    ca_file = credential / "ca.pem"
    ca_file.write_bytes(authority.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    async with HostileUpstream().serve(context) as upstream, ConnectProxy() as proxy:
        proxy.port = upstream.tls_port
        members = configuration(upstream, ca_file, proxy.url)
        async with deployed(folder, upstreams=[members], limits=UNLIMITED) as world:
            here = Far(world, upstream, proxy, context, credential)
            here.shows(authority.issue_server(dns=(HOST,)))
            yield here


@pytest.fixture
async def here(tmp_path: Path, authority: CertificateAuthority) -> AsyncIterator[Far]:
    async with far(tmp_path, authority) as here:
        yield here


def failures(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [getattr(one, "fields", {}) for one in caplog.records if one.msg == event]


# The proxy.


async def test_every_call_to_the_upstream_goes_through_the_proxy(here: Far) -> None:
    user = await here.world.signed_in()
    assert here.proxy.targets == [f"{HOST}:8443"] * 2  # the code, and who the user is
    here.world.clock.advance(100)
    assert (await here.exchange(user)).json()["access_token"] == "access-2"
    assert here.upstream.presented == ["refresh-1"]
    fields = {"token": user.access_token, "client_id": user.client_id}
    assert (await here.world.call("POST", "/oauth/revoke", data=fields)).status == 200
    await here.world.server.drain()
    assert here.upstream.revoked == ["refresh-2"]
    assert here.proxy.targets == [f"{HOST}:8443"] * 4


async def test_without_the_setting_no_proxy_is_used(
    here: Far, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, here.proxy.url)
    ca_file = here.folder / "ca.pem"
    await here.world.reconfigure(upstreams=[configuration(here.upstream, ca_file, None)])
    assert (await here.failed_sign_in())["error"] == "temporarily_unavailable"
    assert here.proxy.targets == []
    assert [one["reason"] for one in failures(caplog, "upstream_sign_in_failed")] == ["not_reached"]


@pytest.mark.parametrize(("status", "reason"), [(407, "proxy_refused"), (0, "not_reached")])
async def test_a_proxy_that_refuses_or_is_gone_is_an_outage_that_the_log_names(
    here: Far, caplog: pytest.LogCaptureFixture, status: int, reason: str
) -> None:
    user = await here.world.signed_in()
    here.world.clock.advance(100)
    here.proxy.refuses = status
    if not status:
        await here.proxy.stop()
    held = await here.exchange(user)
    assert (held.status, held.json()["error"]) == (503, "temporarily_unavailable")
    assert [one["reason"] for one in failures(caplog, "refresh_failed")] == [reason]
    assert (await here.failed_sign_in())["error"] == "temporarily_unavailable"
    assert [one["reason"] for one in failures(caplog, "upstream_sign_in_failed")] == [reason]
    assert here.upstream.presented == []
    if status:
        here.proxy.refuses = 0
        here.world.clock.advance(60)
        assert (await here.exchange(user)).json()["access_token"] == "access-2"


async def test_a_tunnel_that_leads_elsewhere_gets_nothing(here: Far) -> None:
    """The certificate is asked for at the end of the tunnel, in the upstream's name."""
    user = await here.world.signed_in()
    here.shows(CertificateAuthority.create("proxy").issue_server(dns=(HOST,)))
    here.world.clock.advance(100)
    assert (await here.exchange(user)).status == 503
    assert here.upstream.presented == []


# The certificate.


def of_another_authority(_: CertificateAuthority) -> Issued:
    return CertificateAuthority.create("another").issue_server(dns=(HOST,))


def of_another_name(authority: CertificateAuthority) -> Issued:
    return authority.issue_server(dns=("other.upstream.invalid",))


def expired(authority: CertificateAuthority) -> Issued:
    return authority.issue_server(dns=(HOST,), lifetime=timedelta(days=1), now=LONG_AGO)


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        (of_another_authority, "unable to get local issuer certificate"),
        (of_another_name, f"Hostname mismatch, certificate is not valid for '{HOST}'."),
        (expired, "certificate has expired"),
    ],
)
async def test_a_refused_certificate_is_named_with_openssls_words(
    here: Far,
    authority: CertificateAuthority,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[CertificateAuthority], Issued],
    detail: str,
) -> None:
    user = await here.world.signed_in()
    here.shows(spoil(authority))
    # Time does not mend it: the client does not hear of an outage.
    assert (await here.failed_sign_in())["error"] == "server_error"
    (failure,) = failures(caplog, "upstream_sign_in_failed")
    assert (failure["upstream"], failure["reason"]) == ("acme", "certificate_refused")
    assert (failure["detail"], failure["outage"]) == (detail, False)

    here.world.clock.advance(100)
    assert (await here.exchange(user)).status == 503
    (failure,) = failures(caplog, "refresh_failed")
    assert (failure["reason"], failure["detail"]) == ("certificate_refused", detail)
    assert here.upstream.presented == []

    # The connection is kept: it goes on when the certificate is right again.
    here.shows(authority.issue_server(dns=(HOST,)))
    here.world.clock.advance(60)
    assert (await here.exchange(user)).json()["access_token"] == "access-2"


async def test_a_wrong_ca_file_put_right_needs_no_restart(
    here: Far, caplog: pytest.LogCaptureFixture
) -> None:
    other = here.folder / "other.pem"
    other.write_bytes(CertificateAuthority.create("other").certificate_pem)
    await here.world.reconfigure(upstreams=[configuration(here.upstream, other, here.proxy.url)])
    assert (await here.failed_sign_in())["error"] == "server_error"
    (failure,) = failures(caplog, "upstream_sign_in_failed")
    assert failure["reason"] == "certificate_refused"
    ca_file = here.folder / "ca.pem"
    await here.world.reconfigure(upstreams=[configuration(here.upstream, ca_file, here.proxy.url)])
    assert (await here.world.signed_in()).access_token
