"""APIs whose base URL depends on the account: each user's calls reach their own host alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from demo.pki import CertificateAuthority
from demo.upstream.dialects.server import ALICE, BOB
from sidecar.apis import InvalidApis, UnplacedApi, read_apis, read_unplaced
from sidecar.attach.destination import Destination, find_destination
from sidecar.errors import ApiError
from tests.authserver.upstream.test_providers import scene
from tests.fakes.authserver import Received, release
from tests.sidecar.attach.harness import Attached, FakeApi
from tests.sidecar.harness import JWT, OTHER_JWT, Authorities, harness
from tests.support.deployment import NOTES
from tests.support.workloads import NOTES_SERVER

ACME, OTHER = "acme.my.salesforce.com", "other.my.salesforce.com"


# A small internet: a CONNECT proxy that knows each host's API.


@asynccontextmanager
async def apis_by_host(
    folder: Path, authority: CertificateAuthority, *hosts: str
) -> AsyncIterator[tuple[dict[str, FakeApi], str]]:
    """One API for each host, on its port 443; and the address of the proxy that leads there."""
    apis = {host: FakeApi(authority, hosts=(host,)) for host in hosts}
    async with AsyncExitStack() as stack:
        for number, api in enumerate(apis.values()):
            (folder / f"api-{number}").mkdir()
            await stack.enter_async_context(api.listening(folder / f"api-{number}"))

        async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            host = head.split()[1].decode().removesuffix(":443")
            there, back = await asyncio.open_connection("127.0.0.1", apis[host].port)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))

        proxy = await stack.enter_async_context(await asyncio.start_server(lead, "127.0.0.1", 0))
        yield apis, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
    writer.close()


def salesforce(host: str, authority: CertificateAuthority, **changes: Any) -> dict[str, Any]:
    return {
        "name": "rest",
        "base_url": f"https://{host}",
        "methods": ["GET"],
        "path_prefixes": ["/services/data/v60.0/query"],
        "default": True,
        "credential_headers": [],
        "credential_parameters": [],
        "link_members": [],
        "search_answers": True,
        "ca": authority.certificate_pem.decode(),
    } | changes


async def test_two_accounts_never_use_each_others_base_url(
    tmp_path: Path, authorities: Authorities, api_authority: CertificateAuthority
) -> None:
    of_jwt = {JWT: (ACME, "token-of-alice"), OTHER_JWT: (OTHER, "token-of-bob")}

    async def answer(received: Received) -> web.StreamResponse:
        host, token = of_jwt[received.form["subject_token"]]
        return release(access_token=token, apis=[salesforce(host, api_authority)])

    async with (
        apis_by_host(tmp_path, api_authority, ACME, OTHER) as (apis, proxy),
        harness(tmp_path, authorities, API_PROXY=proxy) as r,
    ):
        apis[ACME].tokens, apis[OTHER].tokens = {"token-of-alice"}, {"token-of-bob"}
        r.authserver.always(answer)
        a = Attached(r, apis[ACME])
        for jwt in (JWT, OTHER_JWT, JWT, OTHER_JWT, OTHER_JWT, JWT):
            assert (await a.call("/services/data/v60.0/query?q=x", jwt=jwt)).status == 200
        both = [a.call("/services/data/v60.0/query", jwt=jwt) for jwt in (JWT, OTHER_JWT) * 8]
        assert {one.status for one in await asyncio.gather(*both)} == {200}
        for host, token in of_jwt.values():
            assert len(apis[host].called) == 11
            for called in apis[host].called:
                assert called.values("authorization") == [f"Bearer {token}"]
                assert called.values("host") == [host]


async def test_from_sign_in_to_call_each_account_reaches_its_own_host(
    tmp_path: Path, authorities: Authorities, api_authority: CertificateAuthority
) -> None:
    for name in ("authserver", "sidecar"):
        (tmp_path / name).mkdir()
    own = tmp_path / "authserver"
    (own / "apis.pem").write_bytes(api_authority.certificate_pem)
    async with (
        apis_by_host(tmp_path, api_authority, ACME, OTHER) as (apis, proxy),
        scene(own, "salesforce", caFile="apis.pem") as s,
        harness(
            tmp_path / "sidecar",
            authorities,
            API_PROXY=proxy,
            RESOURCE=NOTES,
            ISSUER=s.world.issuer,
        ) as r,
    ):
        s.provider.adds = {"instance_url": f"https://{ACME}"}
        alice = await s.sign_in(ALICE)
        s.provider.adds = {"instance_url": f"https://{OTHER}/"}
        bob = await s.sign_in(BOB)

        async def exchange(received: Received) -> web.StreamResponse:
            changes = {"audience": "acme"}
            answer = await s.world.exchange(NOTES_SERVER, received.form["subject_token"], **changes)
            return web.Response(
                status=answer.status, text=answer.text, content_type="application/json"
            )

        r.authserver.always(exchange)
        for signed, host in ((alice, ACME), (bob, OTHER)):
            apis[host].tokens = {await s.token(signed)}
        a = Attached(r, apis[ACME])
        url = f"http://127.0.0.1:{r.port}/upstream/acme/services/data/v60.0/query?q=SELECT"
        for signed, host in ((alice, ACME), (bob, OTHER), (alice, ACME)):
            before = len(apis[host].called)
            assert (await a.call(url=url, jwt=signed.jwt)).status == 200
            assert len(apis[host].called) == before + 1
        # A token answer that names a foreign host: a refusal says so, and nothing is sent.
        s.provider.adds = {"instance_url": "https://evil.example"}
        strange = await s.sign_in(ALICE)
        answer = await a.call(url=url, jwt=strange.jwt)
        assert (answer.status, answer.error) == (403, "destination_not_allowed")
        assert "base URL" in answer.json["error_description"]


# APIs without a base URL.


@pytest.mark.parametrize("path", ["/repos", "/rest/repos", "/user"])
async def test_an_api_without_a_base_url_is_a_clear_refusal(a: Attached, path: str) -> None:
    a.always(apis=[], apis_without_base_url=[{"name": "rest", "default": True}])
    answer = await a.call(path)
    assert (answer.status, answer.error) == (403, "destination_not_allowed")
    assert "no base URL" in answer.json["error_description"]
    assert not a.api.called
    # The token itself is there for who may have it.
    assert (await a.r.ask({"upstream": "github"})).status == 200


async def test_a_path_of_an_api_without_a_base_url_does_not_fall_to_another(a: Attached) -> None:
    without = [{"name": "data", "default": False}]
    wide = a.describe(path_prefixes=["/"])
    a.always(apis=[wide], apis_without_base_url=without)
    assert (await a.call("/data/repos")).error == "destination_not_allowed"
    assert not a.api.called
    assert (await a.call("/repos")).status == 200
    named = a.describe(name="files", default=False)
    a.r.clock.advance(61)
    a.always(apis=[named], apis_without_base_url=[{"name": "rest", "default": True}])
    assert (await a.call("/files/repos")).status == 200
    assert (await a.call("/repos")).error == "destination_not_allowed"


@pytest.mark.parametrize(
    "value",
    ["rest", {"name": "rest"}, [7], [None], [{}], [{"name": "rest"}], [{"name": "a/b"}],
     [{"name": "rest", "default": "yes"}], [{"name": 7, "default": True}]],
    ids=str,
)  # fmt: skip
async def test_a_list_that_cannot_be_read_is_no_release(a: Attached, value: Any) -> None:
    with pytest.raises(InvalidApis):
        read_unplaced(value)
    a.always(apis_without_base_url=value)
    assert (await a.call()).status == 503
    assert not a.api.called


def test_an_api_that_is_named_comes_before_an_unplaced_default(api: dict[str, Any]) -> None:
    (placed,) = read_apis([api | {"name": "files", "default": False}])
    unplaced = [UnplacedApi("rest", default=True), UnplacedApi("mail", default=False)]
    found = find_destination([placed], "GET", "/files/x", unplaced)
    assert found == Destination(placed, "/x")
    for path in ("/mail/x", "/rest/x", "/x", "/"):
        refusal = find_destination([placed], "GET", path, unplaced)
        assert isinstance(refusal, ApiError)
        assert refusal.reason == "no_base_url"
    refusal = find_destination([placed], "GET", "/../files/x", unplaced)
    assert isinstance(refusal, ApiError)
    assert refusal.reason == "path_dot_segment"


def test_accounts_share_all_but_the_base_url(api: dict[str, Any]) -> None:
    (one,) = read_apis([api | {"base_url": f"https://{ACME}"}])
    (other,) = read_apis([api | {"base_url": f"https://{OTHER}"}])
    assert (one.base_url, other.base_url) == (f"https://{ACME}", f"https://{OTHER}")
    assert one.path_prefixes is other.path_prefixes


@pytest.fixture
def api() -> dict[str, Any]:
    return salesforce(ACME, CertificateAuthority.create("apis"), path_prefixes=["/"])
