"""Chains C19 to C32 at the real listener: what a leaf hangs from decides in the handshake.

Some anchors stand in the listener's context that the loader of the bundle would never let in:
OpenSSL's own refusal is the second line behind it.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

from demo.pki import Issued
from tests.support.svid_certificates import (
    AUTHORITY,
    INTERMEDIATE,
    SPIFFE_ID,
    Pair,
    Shape,
    authority,
    dns,
    rsa_key,
    self_signed,
    signed_with_sha1,
    uri,
)
from tests.support.tls_test_server import HANDSHAKE, Site, trusting
from tests.support.workloads import audited

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Anchors:
    """The only root that is fit, and those that are smuggled in beside it."""

    root: Pair
    expired: Pair
    of_tomorrow: Pair
    weak: Pair
    not_for_signing: Pair
    under_another: Pair
    leaf: Pair

    @classmethod
    def create(cls) -> "Anchors":
        root = self_signed(replace(AUTHORITY, new_key=rsa_key(2048)))
        return cls(
            root,
            self_signed(replace(AUTHORITY, subject="expired", starts=timedelta(hours=-25))),
            self_signed(replace(AUTHORITY, subject="tomorrow", starts=timedelta(hours=1))),
            self_signed(replace(AUTHORITY, subject="weak", new_key=rsa_key(1024))),
            self_signed(replace(AUTHORITY, subject="mute", usages=("crl_sign",))),
            self_signed(replace(AUTHORITY, subject="elsewhere")).issue(authority(subject="middle")),
            root.issue(),
        )


Chain = Callable[[Anchors], Issued]
PLAIN = Shape()


def below(*shapes: Shape, leaf: Shape = PLAIN, sent: bool = True, turned: bool = False) -> Chain:
    """A leaf under intermediates of these shapes, which are sent along or not."""

    def chain(anchors: Anchors) -> Issued:
        issuer = anchors.root
        middle: list[Pair] = []
        for shape in shapes:
            issuer = issuer.issue(shape)
            middle.insert(0, issuer)
        if turned:
            middle.reverse()
        return issuer.issue(leaf).issued(*(middle if sent else ()))

    return chain


def under(anchor: Callable[[Anchors], Pair]) -> Chain:
    return lambda anchors: anchor(anchors).issue().issued()


def other_authority(name: str, *, attached: bool) -> Chain:
    def chain(_: Anchors) -> Issued:
        other = self_signed(replace(AUTHORITY, subject=name))
        return other.issue().issued(*([other] if attached else []))

    return chain


def with_sha1(*, leaf: bool) -> Chain:
    def chain(anchors: Anchors) -> Issued:
        if leaf:
            return signed_with_sha1(anchors.root.issue(), anchors.root).issued()
        middle = signed_with_sha1(anchors.root.issue(INTERMEDIATE), anchors.root)
        return middle.issue().issued(middle)

    return chain


def names_limited(*, permit: bool, to: x509.GeneralName) -> Shape:
    limit = x509.NameConstraints([to] if permit else None, None if permit else [to])
    return authority(more=((limit, True),))


def web(host: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(host)


NAMED = Shape(names=(uri(SPIFFE_ID), dns("notes.example")))
SECOND, THIRD = authority(subject="second"), authority(subject="third", path_length=None)
LONG = [replace(shape, path_length=None) for shape in (INTERMEDIATE, SECOND)]
MUTE, SERVERS = authority(usages=("crl_sign",)), authority(purposes=(Purpose.SERVER_AUTH,))
FOR_DNS, NOT_DNS = (
    names_limited(permit=permit, to=x509.DNSName("notes.example")) for permit in (True, False)
)
OTHER_DNS = names_limited(permit=True, to=x509.DNSName("others.example"))
CHAINS: list[tuple[str, Chain, str | None]] = [
    ("C19 expired intermediate", below(authority(starts=timedelta(hours=-25))), HANDSHAKE),
    ("C19 intermediate of tomorrow", below(authority(starts=timedelta(hours=1))), HANDSHAKE),
    ("C19 expired anchor", under(lambda anchors: anchors.expired), HANDSHAKE),
    ("C19 anchor of tomorrow", under(lambda anchors: anchors.of_tomorrow), HANDSHAKE),
    ("C20 another authority", other_authority("others", attached=False), HANDSHAKE),
    ("C20 another of the same name", other_authority("workloads", attached=False), HANDSHAKE),
    ("C20 another with its root", other_authority("others", attached=True), HANDSHAKE),
    ("C20 of the same name with its root", other_authority("workloads", attached=True), HANDSHAKE),
    ("C20 self-signed", lambda _: self_signed(Shape(subject="notes")).issued(), HANDSHAKE),
    ("C21 no intermediate", below(), None),
    ("C21 one intermediate", below(INTERMEDIATE), None),
    ("C21 two intermediates", below(INTERMEDIATE, SECOND), None),
    ("C21 in another order", below(INTERMEDIATE, SECOND, turned=True), None),
    ("C21 three intermediates", below(*LONG, THIRD), HANDSHAKE),
    ("C22 intermediate not sent", below(INTERMEDIATE, sent=False), HANDSHAKE),
    ("C23 an intermediate as anchor", under(lambda anchors: anchors.under_another), HANDSHAKE),
    ("C24 a leaf of ours as anchor", lambda anchors: anchors.leaf.issued(), None),
    ("C24 under a leaf as anchor", under(lambda anchors: anchors.leaf), HANDSHAKE),
    ("C25 path too long", below(authority(path_length=0), SECOND), HANDSHAKE),
    ("C25 issuer no CA", below(authority(ca=False, path_length=None)), HANDSHAKE),
    ("C25 issuer may not sign", below(MUTE), HANDSHAKE),
    ("C25 anchor may not sign", under(lambda anchors: anchors.not_for_signing), HANDSHAKE),
    ("C25 a leaf signs a leaf", below(Shape(subject="notes")), HANDSHAKE),
    ("C26 URI permitted", below(names_limited(permit=True, to=web("example.org"))), None),
    ("C26 URI forbidden", below(names_limited(permit=False, to=web("example.org"))), HANDSHAKE),
    ("C26 another permitted", below(names_limited(permit=True, to=web("a.example"))), HANDSHAKE),
    ("C27 DNS name permitted", below(FOR_DNS, leaf=NAMED), None),
    ("C27 DNS name forbidden", below(NOT_DNS, leaf=NAMED), HANDSHAKE),
    ("C27 another DNS name permitted", below(OTHER_DNS, leaf=NAMED), HANDSHAKE),
    ("C27 intermediate for servers", below(SERVERS), HANDSHAKE),
    ("C31 RSA 1024 authority", below(authority(new_key=rsa_key(1024))), HANDSHAKE),
    ("C31 RSA 1024 anchor", under(lambda anchors: anchors.weak), HANDSHAKE),
    ("C31 SHA-1 under a leaf", with_sha1(leaf=True), HANDSHAKE),
    ("C31 SHA-1 under an intermediate", with_sha1(leaf=False), HANDSHAKE),
    ("C32 Ed25519 authority", below(authority(new_key=ed25519.Ed25519PrivateKey.generate)), None),
]  # fmt: skip


@dataclass(frozen=True)
class Here:
    site: Site
    anchors: Anchors


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Here]:
    anchors = Anchors.create()
    smuggled = (
        anchors.expired, anchors.of_tomorrow, anchors.weak, anchors.not_for_signing,
        anchors.under_another, anchors.leaf,
    )  # fmt: skip
    async with trusting(tmp_path_factory.mktemp("chains"), anchors.root, *smuggled) as site:
        yield Here(site, anchors)


@pytest.mark.parametrize(
    ("chain", "outcome"), [row[1:] for row in CHAINS], ids=[row[0] for row in CHAINS]
)
async def test_a_chain_is_let_in_only_under_an_authority_of_ours(
    here: Here, caplog: pytest.LogCaptureFixture, chain: Chain, outcome: str | None
) -> None:
    with audited(caplog) as trail:
        assert await here.site.decided(chain(here.anchors), trail) == outcome
