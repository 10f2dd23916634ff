"""What may be an anchor, what OpenSSL is told, and how long a chain may be."""

import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from chassis.clock import wall
from chassis.tls import ca_bundle
from tests.support.svid_certificates import AUTHORITY, Pair, Shape, authority, self_signed


def context_of(
    *anchors: Pair, judge: ca_bundle.CaCheck = lambda _: None, now: Callable[[], float] = wall
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bundle = b"".join(anchor.pem() for anchor in anchors)
    ca_bundle.trust_only(context, bundle.decode(), judge, now)
    return context


ROOT, NEXT = self_signed(), self_signed(replace(AUTHORITY, subject="the next"))
MIDDLE = ROOT.issue(authority(subject="in the middle"))
LONG_AGO = replace(AUTHORITY, subject="long ago", starts=timedelta(hours=-25))
EXPIRED, EXPIRED_TOO = self_signed(LONG_AGO), self_signed(LONG_AGO)
OF_EXPIRED = EXPIRED.issue(authority(subject="below long ago"))
TOMORROW = self_signed(replace(AUTHORITY, starts=timedelta(hours=1)))
UNFIT: list[tuple[str, tuple[Pair, ...], str]] = [
    ("expired", (EXPIRED,), "expired"),
    ("two that expired", (EXPIRED, EXPIRED_TOO), "expired"),
    ("an expired root and its intermediate", (EXPIRED, NEXT, OF_EXPIRED), "root is not here"),
    ("an expired one and one of tomorrow", (EXPIRED, ROOT, TOMORROW), "not yet valid"),
    ("of tomorrow", (TOMORROW,), "not yet valid"),
    ("an intermediate alone", (MIDDLE,), "root is not here"),
    ("a root and another's intermediate", (NEXT, MIDDLE), "root is not here"),
    ("a leaf that signed itself", (self_signed(Shape(subject="x")),), "nothing else"),
    ("a root and its leaf", (ROOT, ROOT.issue()), "nothing else"),
]


@pytest.mark.parametrize(
    ("anchors", "problem"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT]
)
def test_an_anchor_that_is_not_fit_is_refused_with_the_whole_bundle(
    anchors: tuple[Pair, ...], problem: str
) -> None:
    """C19, C23 and C24."""
    with pytest.raises(ca_bundle.InvalidCaBundle, match=problem):
        context_of(*anchors)


def test_roots_and_an_intermediate_below_one_of_them_are_fit() -> None:
    assert len(ca_bundle.fingerprints(context_of(ROOT, NEXT, MIDDLE))) == 3


def test_an_expired_ca_is_left_out_while_a_valid_one_remains() -> None:
    """Decision 22. The renewed root may have the name and the key of the expired one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bundle = (EXPIRED.pem() + ROOT.pem() + EXPIRED_TOO.pem()).decode()
    left_out = ca_bundle.trust_only(context, bundle, lambda _: None, wall)
    expired = [ca_bundle.fingerprint(each.der()) for each in (EXPIRED, EXPIRED_TOO)]
    assert left_out == tuple(sorted(expired))
    assert context.get_ca_certs(binary_form=True) == [ROOT.der()]


def test_an_expired_ca_is_not_judged_otherwise() -> None:
    context_of(ROOT, EXPIRED, judge=lambda der: "unfit" if der == EXPIRED.der() else None)


def test_an_anchor_is_judged_at_the_moment_it_is_loaded() -> None:
    ends = ROOT.certificate.not_valid_after_utc.timestamp()
    context_of(ROOT, now=lambda: ends - 1)
    with pytest.raises(ca_bundle.InvalidCaBundle, match="expired"):
        context_of(ROOT, now=lambda: ends)
    begins = ROOT.certificate.not_valid_before_utc.timestamp()
    context_of(ROOT, now=lambda: begins)
    with pytest.raises(ca_bundle.InvalidCaBundle, match="not yet"):
        context_of(ROOT, now=lambda: begins - 1)


def test_an_objection_of_the_judge_names_the_authority() -> None:
    judged: list[bytes] = []

    def judge(der: bytes) -> str | None:
        judged.append(der)
        return "is of another house" if der == NEXT.der() else None

    with pytest.raises(ca_bundle.InvalidCaBundle, match="of another house") as unfit:
        context_of(ROOT, NEXT, judge=judge)
    assert ca_bundle.fingerprint(NEXT.der()) in str(unfit.value)
    assert NEXT.der() in judged


def test_what_openssl_is_told_is_spelled_out() -> None:
    context = context_of(ROOT)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert not context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.security_level == 2


def test_a_partial_chain_stays_off_where_it_was_on() -> None:
    """`create_default_context` of Python 3.13 turns it on, and another OpenSSL may."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    ca_bundle.trust_only(context, ROOT.pem().decode(), lambda _: None, wall)
    assert not context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.security_level == 2


def test_a_fingerprint_is_openssls() -> None:
    from cryptography.hazmat.primitives import hashes

    assert ca_bundle.fingerprint(ROOT.der()) == ROOT.certificate.fingerprint(hashes.SHA256()).hex()
    assert datetime.now(UTC) < ROOT.certificate.not_valid_after_utc


def tunnel(chain: list[bytes] | None, *, public: bool) -> SimpleNamespace:
    read = SimpleNamespace(get_verified_chain=lambda: chain)
    return read if public else SimpleNamespace(_sslobj=read)


@pytest.mark.parametrize("public", [True, False], ids=["from 3.13", "before"])
@pytest.mark.parametrize(
    ("length", "fits"), [(0, False), (1, True), (4, True), (5, False), (None, False)]
)
def test_a_chain_that_is_too_long_or_unknown_is_refused(
    public: bool, length: int | None, fits: bool
) -> None:
    """C21, on every Python: the listener's own test shows one of them."""
    tls = tunnel(None if length is None else [b""] * length, public=public)
    if fits:
        ca_bundle.refuse_long_chain(tls)  # type: ignore[arg-type]
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="unknown or too long"):
            ca_bundle.refuse_long_chain(tls)  # type: ignore[arg-type]


def test_where_the_chain_cannot_be_read_nobody_is_let_in() -> None:
    for tls in (SimpleNamespace(), SimpleNamespace(_sslobj=SimpleNamespace())):
        with pytest.raises(ssl.SSLCertVerificationError):
            ca_bundle.refuse_long_chain(tls)  # type: ignore[arg-type]
