"""Leaves of shapes C1 to C35 at the real listener: who is let in, and who turns the rest away.

OpenSSL ends a handshake ("handshake"), our own reading of the leaf answers 401 with the reason in
the audit, or the caller is let in (None).
"""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

from authserver.internal.svid import InvalidSvid, SvidReader
from tests.support.spiffe_ids import NOT_IDS
from tests.support.svid_certificates import (
    AUTHORITY,
    SPIFFE_ID,
    Shape,
    authority,
    curve,
    dns,
    ip,
    mail,
    placeholder,
    rsa_key,
    self_signed,
    twice_named,
    unknown_extension,
    uri,
)
from tests.support.tls_test_server import HANDSHAKE, Site, trusting
from tests.support.workloads import audited, form, line

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNREADABLE = "certificate_unreadable"
OTHER = "not_a_workload_of_this_trust_domain"
CA, SIGNS, LONG = (
    "certificate_of_a_ca",
    "certificate_may_sign_certificates",
    "certificate_lives_too_long",
)
OURS, PURPOSE = "certificate_names_the_authserver", "not_for_client_authentication"
SIGN, CERTS, CRLS = "digital_signature", "key_cert_sign", "crl_sign"
WEB = "https://notes.example/mcp"
AUTHORITY_ID = "spiffe://example.org"
ELSEWHERE = "spiffe://example.net/ns/mcp-servers/mcpserver/notes"

LEAVES: list[tuple[str, Shape, str | None]] = [
    ("C1 the plain shape", Shape(), None),
    ("C1 with a CN", Shape(subject="notes"), None),
    ("C1 with a CN, names not critical", Shape(subject="notes", names_critical=False), None),
    ("C2 no CN, names not critical", Shape(names_critical=False), HANDSHAKE),
    ("C3 a DNS name too", Shape(names=(dns("notes.example"), uri(SPIFFE_ID))), None),
    ("C3 an address, a mail", Shape(names=(ip(10, 0, 0, 1), mail("a@b.c"), uri(SPIFFE_ID))), None),
    ("C3 our own name", Shape(names=(uri(SPIFFE_ID), dns("localhost"))), OURS),
    ("C3 our own name in capitals", Shape(names=(uri(SPIFFE_ID), dns("LocalHost"))), OURS),
    ("C4 no names", Shape(names=None, subject=SPIFFE_ID), "no_spiffe_id"),
    ("C4 only a DNS name", Shape(names=(dns("notes.example"),)), "not_exactly_one_uri"),
    ("C5 two IDs", Shape(names=(uri(SPIFFE_ID), uri(SPIFFE_ID + "2"))), "not_exactly_one_uri"),
    ("C5 the same twice", Shape(names=(uri(SPIFFE_ID), uri(SPIFFE_ID))), "not_exactly_one_uri"),
    ("C5 an ID and a URL", Shape(names=(uri(SPIFFE_ID), uri(WEB))), "not_exactly_one_uri"),
    ("C5 a URL and an ID", Shape(names=(uri(WEB), uri(SPIFFE_ID))), "not_exactly_one_uri"),
    ("C5 an ID and an URN", Shape(names=(uri(SPIFFE_ID), uri("urn:a:b"))), "not_exactly_one_uri"),
    ("C6 only a URL", Shape(names=(uri("https://example.org/ns/a/mcpserver/b"),)), OTHER),
    ("C7 another trust domain", Shape(names=(uri(ELSEWHERE),)), OTHER),
    ("C9 a CA", Shape(ca=True, subject="x"), CA),
    ("C9 a CA that may sign", Shape(ca=True, subject="x", usages=(SIGN, CERTS)), CA),
    ("C10 may sign certificates", Shape(usages=(SIGN, CERTS)), HANDSHAKE),
    ("C11 may sign revocation lists", Shape(usages=(SIGN, CRLS), subject="x"), SIGNS),
    ("C12 no key usage", Shape(usages=None), "key_usage_missing"),
    ("C13 key usage not critical", Shape(usages_critical=False), "key_usage"),
    ("C14 no digitalSignature", Shape(usages=("key_encipherment",)), HANDSHAKE),
    ("C15 no basic constraints", Shape(ca=None), None),
    ("C16 no extended key usage", Shape(purposes=None), "key_usage_missing"),
    ("C17 clientAuth only", Shape(purposes=(Purpose.CLIENT_AUTH,)), None),
    ("C17 critical", Shape(purposes_critical=True), None),
    ("C18 serverAuth only", Shape(purposes=(Purpose.SERVER_AUTH,)), HANDSHAKE),
    ("C18 any purpose", Shape(purposes=(Purpose.ANY_EXTENDED_KEY_USAGE,)), HANDSHAKE),
    ("C18 code signing", Shape(purposes=(Purpose.CODE_SIGNING,)), HANDSHAKE),
    ("C19 expired", Shape(starts=timedelta(hours=-5)), HANDSHAKE),
    ("C19 not yet valid", Shape(starts=timedelta(hours=1)), HANDSHAKE),
    ("C28 unknown critical extension", Shape(more=(unknown_extension(critical=True),)), HANDSHAKE),
    ("C28 unknown extension", Shape(more=(unknown_extension(critical=False),)), None),
    ("C29 no authority key identifier", Shape(authority_id=False), HANDSHAKE),
    ("C30 RSA 1024", Shape(new_key=rsa_key(1024)), HANDSHAKE),
    ("C30 RSA 2048", Shape(new_key=rsa_key(2048)), None),
    ("C30 P-224", Shape(new_key=curve(ec.SECP224R1())), HANDSHAKE),
    ("C30 secp256k1", Shape(new_key=curve(ec.SECP256K1())), HANDSHAKE),
    ("C30 P-384", Shape(new_key=curve(ec.SECP384R1())), None),
    ("C30 P-521", Shape(new_key=curve(ec.SECP521R1())), "weak_key"),
    ("C32 Ed25519", Shape(new_key=ed25519.Ed25519PrivateKey.generate), None),
    ("C32 Ed448", Shape(new_key=ed448.Ed448PrivateKey.generate), "weak_key"),
    ("C33 just a day", Shape(lives=timedelta(hours=24)), None),
    ("C33 more than a day", Shape(lives=timedelta(hours=24, seconds=1)), LONG),
    ("C33 ten years", Shape(lives=timedelta(days=3650)), LONG),
    ("C34 a CN that names another server", Shape(subject=ELSEWHERE), None),
    ("C35 an authority's own", authority(names=(uri(AUTHORITY_ID),), usages=(SIGN, CERTS)), CA),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    root = self_signed(AUTHORITY)
    async with trusting(tmp_path_factory.mktemp("svid"), root) as site:
        yield site


@pytest.mark.parametrize(
    ("shape", "outcome"), [row[1:] for row in LEAVES], ids=[row[0] for row in LEAVES]
)
async def test_a_leaf_is_let_in_only_as_an_svid_of_a_workload(
    site: Site, caplog: pytest.LogCaptureFixture, shape: Shape, outcome: str | None
) -> None:
    with audited(caplog) as trail:
        assert await site.decided(site.root.issue(shape).issued(), trail) == outcome


async def test_no_string_but_a_workloads_id_is_one_in_a_certificate(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """C7, with every string of the grammar's table and two that are no UTF-8."""
    texts: list[str | bytes] = [*NOT_IDS, SPIFFE_ID.encode() + b"\xff", b"\xc0\xaf"]
    for text in texts:
        issued = site.root.issue(Shape(names=(uri(text),))).issued()
        with audited(caplog) as trail:
            decided = await site.decided(issued, trail)
        # asyncio gives up a connection whose certificate has names that are no UTF-8.
        assert decided in ({OTHER, UNREADABLE} if isinstance(text, str) else {HANDSHAKE}), text


def reader(max_lifetime: int = 86400) -> SvidReader:
    return SvidReader("example.org", max_lifetime=max_lifetime, own_names=frozenset({"localhost"}))


# What OpenSSL would refuse too, read by us alone: one check may fail without the other noticing.
DOUBLY_REFUSED: list[tuple[str, Shape, str]] = [
    ("C10", Shape(usages=(SIGN, CERTS)), SIGNS),
    ("C14", Shape(usages=("key_encipherment",)), "key_usage"),
    ("C18 serverAuth", Shape(purposes=(Purpose.SERVER_AUTH,)), PURPOSE),
    ("C18 any purpose", Shape(purposes=(Purpose.ANY_EXTENDED_KEY_USAGE,)), PURPOSE),
    ("C30 RSA", Shape(new_key=rsa_key(1024)), "weak_key"),
    ("C30 P-224", Shape(new_key=curve(ec.SECP224R1())), "weak_key"),
    ("C30 secp256k1", Shape(new_key=curve(ec.SECP256K1())), "weak_key"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "reason"),
    [row[1:] for row in DOUBLY_REFUSED],
    ids=[row[0] for row in DOUBLY_REFUSED],
)
async def test_our_own_reading_does_not_lean_on_openssls(shape: Shape, reason: str) -> None:
    with pytest.raises(InvalidSvid, match=f"^{reason}$"):
        reader().read(self_signed(AUTHORITY).issue(shape).der())


async def test_a_certificate_with_its_names_twice_is_refused_and_no_failure() -> None:
    """C8; no client can even load it, so it is shown to the reader."""
    root = self_signed(AUTHORITY)
    doubled = root.issue(Shape(more=(placeholder(uri(SPIFFE_ID)),)))
    with pytest.raises(InvalidSvid, match=f"^{UNREADABLE}$"):
        reader().read(twice_named(doubled, root))


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
async def test_bytes_that_are_no_certificate_are_refused_and_no_failure(cut: int) -> None:
    with pytest.raises(InvalidSvid, match=f"^{UNREADABLE}$"):
        reader().read(self_signed(AUTHORITY).issue().der()[:cut])


@pytest.mark.parametrize(
    ("sound", "damaged"),
    [
        ("020102", "020107"),  # a version that does not exist
        ("2a8648ce3d030107", "2a8648ce3d030163"),  # a curve nobody knows
        ("2a8648ce3d0201", "2a8648ce3d0263"),  # a kind of key nobody knows
    ],
)
async def test_a_certificate_nobody_can_read_is_refused_and_no_failure(
    sound: str, damaged: str
) -> None:
    der = self_signed(AUTHORITY).issue().der()
    with pytest.raises(InvalidSvid, match=f"^{UNREADABLE}$"):
        reader().read(der.replace(bytes.fromhex(sound), bytes.fromhex(damaged), 1))


async def test_a_refused_certificate_is_refused_on_every_request_of_its_connection(
    site: Site,
) -> None:
    issued = site.root.issue(Shape(usages=None)).issued()
    async with line(site.world, site.world.tls(issued)) as caller:
        for _ in range(3):
            assert (await caller.send(form(site.jwt))).status == 401
        assert caller.connections == 3


async def test_a_certificate_is_valid_between_its_two_times_only() -> None:
    svid = reader().read(self_signed(AUTHORITY).issue().der())
    for now, valid in (
        (svid.not_before - 1, False),
        (svid.not_before, True),
        (svid.not_after - 1, True),
        (svid.not_after, False),
    ):
        assert svid.valid(now) is valid
