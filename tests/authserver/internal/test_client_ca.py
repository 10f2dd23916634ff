"""The bundle of workload authorities: one that is not fit keeps the whole bundle out, audibly."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose

from authserver import listener_tls
from authserver.config.loader import load
from authserver.internal.client_ca import problem_of
from chassis import process
from chassis.tls.contexts import CredentialFault
from chassis.tls.self_handshake import Certificate
from demo.pki import write_credential
from tests.support.deployment import deployed
from tests.support.svid_certificates import (
    AUTHORITY,
    SPIFFE_ID,
    Pair,
    Shape,
    authority,
    curve,
    dns,
    placeholder,
    rsa_key,
    self_signed,
    signed_with_sha1,
    twice_named,
    unknown_extension,
    uri,
)
from tests.support.workloads import NOTES_SERVER, audited, line

BOTH = (Purpose.CLIENT_AUTH, Purpose.CODE_SIGNING)
RSA_ROOT = self_signed(replace(AUTHORITY, new_key=rsa_key(2048)))


def root(**changes: object) -> Pair:
    return self_signed(replace(AUTHORITY, **changes))  # type: ignore[arg-type]


ANCHORS: list[tuple[str, Callable[[], Pair], str | None]] = [
    ("P-256", root, None),
    ("P-384", lambda: root(new_key=curve(ec.SECP384R1())), None),
    ("P-521", lambda: root(new_key=curve(ec.SECP521R1())), None),
    ("Ed25519", lambda: root(new_key=ed25519.Ed25519PrivateKey.generate), None),
    ("RSA 2048", lambda: RSA_ROOT, None),
    ("RSA 1024", lambda: root(new_key=rsa_key(1024)), "weak key"),
    ("P-224", lambda: root(new_key=curve(ec.SECP224R1())), "weak key"),
    ("secp256k1", lambda: root(new_key=curve(ec.SECP256K1())), "weak key"),
    ("Ed448", lambda: root(new_key=ed448.Ed448PrivateKey.generate), "weak key"),
    ("may sign lists only", lambda: root(usages=("crl_sign",)), "may not sign"),
    ("no key usage", lambda: root(usages=None), "does not say"),
    ("no basic constraints", lambda: root(ca=None), "does not say"),
    ("no CA", lambda: root(ca=False), "is no CA"),
    ("basic constraints not critical", lambda: root(ca_critical=False), "not marked critical"),
    ("no subject key identifier", lambda: root(subject_id=False), "Missing Subject Key"),
    ("for servers alone", lambda: root(purposes=(Purpose.SERVER_AUTH,)), "certificate purpose"),
    (
        "for any purpose",
        lambda: root(purposes=(Purpose.ANY_EXTENDED_KEY_USAGE,)),
        "certificate purpose",
    ),
    ("for clients among others", lambda: root(purposes=BOTH), None),
    ("no subject", lambda: root(subject=None), "can vouch for nobody"),
    (
        "an RSA root without subject key identifier",
        lambda: root(new_key=rsa_key(2048), subject_id=False),
        "Missing Subject Key",
    ),
    ("an extension nobody knows", lambda: root(more=(unknown_extension(critical=True),)), "nobody"),
    ("a root's SHA-1", lambda: signed_with_sha1(RSA_ROOT, RSA_ROOT), None),
    (
        "an intermediate's SHA-1",
        lambda: signed_with_sha1(RSA_ROOT.issue(authority()), RSA_ROOT),
        "broken hash",
    ),
]


@pytest.mark.parametrize(
    ("make", "problem"), [row[1:] for row in ANCHORS], ids=[row[0] for row in ANCHORS]
)
def test_an_authority_is_fit_by_its_marks_and_its_key(
    make: Callable[[], Pair], problem: str | None
) -> None:
    """C24 and C31."""
    found = problem_of(make().der())
    assert found is None if problem is None else problem in (found or "")


def test_an_authority_nobody_can_read_is_not_fit() -> None:
    authority = root()
    doubled = authority.issue(replace(AUTHORITY, more=(placeholder(uri(SPIFFE_ID)),), names=()))
    assert problem_of(twice_named(doubled, authority)) == "cannot be read"
    assert problem_of(b"") == "cannot be read"


UNFIT = [row for row in ANCHORS if row[2] is not None]


@pytest.mark.parametrize(
    ("make", "problem"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT]
)
async def test_the_listener_takes_no_bundle_with_an_unfit_authority_in_it(
    tmp_path: Path, make: Callable[[], Pair], problem: str
) -> None:
    async with deployed(tmp_path) as world:
        settings = load(tmp_path / "authserver.yaml")
        material = listener_tls.internal_material(settings.listeners.internal)
        bundle = (tmp_path / "workloads.pem").read_bytes()
        roots = b"" if problem != "broken hash" else RSA_ROOT.pem()
        (tmp_path / "workloads.pem").write_bytes(bundle + roots + make().pem())
        with pytest.raises(CredentialFault, match=r"workloads\.pem"):
            material.build()
        (fault,) = listener_tls.faults(settings)
        assert fault.path == "listeners.internal"
        # Who is served already is served on.
        jwt = (await world.signed_in()).access_token
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200


async def test_a_spoilt_bundle_keeps_the_last_good_one_and_is_said_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with deployed(tmp_path) as world:
        settings = load(tmp_path / "authserver.yaml")
        heard: list[Certificate | None] = []

        def hear(place: str, certificate: Certificate | None) -> None:
            heard.append(certificate)
            world.server.credential_reloaded(place, certificate)

        def counted(result: str) -> float | None:
            name = "tokenward_credential_reloads_total"
            return world.server.registry.get_sample_value(name, {"result": result})

        reloading = listener_tls.reloading(
            listener_tls.internal_material(settings.listeners.internal), hear
        )
        current = reloading.context.current
        good = (tmp_path / "workloads.pem").read_bytes()
        (tmp_path / "workloads.pem").write_bytes(good + root(new_key=rsa_key(1024)).pem())
        assert not reloading.poll()
        assert reloading.context.current is current
        assert heard == [None]
        (said,) = [record for record in caplog.records if record.msg == "credential_kept"]
        assert "has a weak key" in vars(said)["fields"]["problem"]
        (tmp_path / "workloads.pem").write_bytes(good + root(subject="the next").pem())
        assert reloading.poll()
        assert (counted("ok"), counted("failed")) == (1, 1)


async def test_an_expired_ca_is_left_out_while_a_valid_one_remains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Decision 22: taking a CA out of the bundle too late locks nobody out."""
    async with deployed(tmp_path) as world:
        settings = load(tmp_path / "authserver.yaml")
        registry = world.server.registry
        expired = root(subject="long ago", starts=timedelta(days=-2))
        good = (tmp_path / "workloads.pem").read_bytes()
        (tmp_path / "workloads.pem").write_bytes(expired.pem() + good)
        assert listener_tls.faults(settings) == []
        async with AsyncExitStack() as stack:
            contexts = await listener_tls.followed(
                stack, settings, world.server.credential_reloaded, world.server.expired_cas
            )
            assert registry.get_sample_value("tokenward_expired_cas") == 1
            current = contexts[listener_tls.INTERNAL].current  # type: ignore[attr-defined]
            assert expired.der() not in current.get_ca_certs(binary_form=True)
        (record,) = [record for record in caplog.records if record.msg == "expired_cas_left_out"]
        assert vars(record)["fields"]["sha256"] == (sha256(expired.der()).hexdigest(),)
        (tmp_path / "workloads.pem").write_bytes(expired.pem())
        assert "has expired" in listener_tls.faults(settings)[0].problem


async def test_a_bundle_that_is_spoilt_after_it_was_checked_is_a_fault_all_the_same(
    tmp_path: Path,
) -> None:
    async with deployed(tmp_path):
        settings = load(tmp_path / "authserver.yaml")
        assert listener_tls.faults(settings) == []
        (tmp_path / "workloads.pem").write_bytes(b"")
        with pytest.raises(process.ConfigurationError):
            async with AsyncExitStack() as stack:
                await listener_tls.followed(stack, settings, lambda *_: None)


async def test_a_certificate_that_names_us_is_refused_by_the_name_we_have_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C3: also on a live connection whose certificate was fine until our name changed."""
    async with deployed(tmp_path) as world:
        settings = load(tmp_path / "authserver.yaml")
        jwt = (await world.signed_in()).access_token
        workloads = Pair(world.workload_ca.certificate, world.workload_ca.key)
        caller = workloads.issue(Shape(names=(uri(SPIFFE_ID), dns("Tokenward.example"))))
        reloading = listener_tls.reloading(
            listener_tls.internal_material(settings.listeners.internal),
            world.server.credential_reloaded,
        )
        async with line(world, world.tls(caller.issued())) as sidecar:
            assert (await sidecar.exchange(jwt)).status == 200
            renamed = world.server_ca.issue_server(dns=("tokenward.EXAMPLE", "localhost"))
            write_credential(tmp_path, renamed)
            assert reloading.poll()
            with audited(caplog) as trail:
                assert (await sidecar.exchange(jwt)).status == 401
            assert trail.reason == "certificate_names_the_authserver"
            assert sidecar.connections == 1
        assert (await world.exchange(NOTES_SERVER, jwt)).status == 200


async def test_the_end_of_the_certificate_in_use_is_a_metric(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        settings = load(tmp_path / "authserver.yaml")
        server, name = world.server, "tokenward_authserver_serving_cert_expiry_timestamp_seconds"

        def end() -> float | None:
            return server.registry.get_sample_value(name, {"listener": "internal"})

        async with AsyncExitStack() as stack:
            await listener_tls.followed(
                stack,
                settings,
                server.credential_reloaded,
                on_certificate=server.certificate_in_use,
            )
            first = end()
        assert first is not None
        reloading = listener_tls.reloading(
            listener_tls.internal_material(settings.listeners.internal), server.credential_reloaded
        )
        write_credential(tmp_path, world.server_ca.issue_server(lifetime=timedelta(days=400)))
        assert reloading.poll()
        assert end() == reloading.certificate.not_after > first


async def test_a_certificate_that_never_took_over_gives_us_no_name(tmp_path: Path) -> None:
    async with deployed(tmp_path) as world:
        settings = load(tmp_path / "authserver.yaml")
        jwt = (await world.signed_in()).access_token
        workloads = Pair(world.workload_ca.certificate, world.workload_ca.key)
        caller = workloads.issue(Shape(names=(uri(SPIFFE_ID), dns("localhost"))))
        reloading = listener_tls.reloading(
            listener_tls.internal_material(settings.listeners.internal),
            world.server.credential_reloaded,
        )
        renamed = world.server_ca.issue_server(dns=("elsewhere",))
        (tmp_path / "tls.crt").write_bytes(renamed.chain)  # its key is not there yet
        assert not reloading.poll()
        answer = await world.exchange_with(world.tls(caller.issued()), jwt)
        assert answer.status == 401
