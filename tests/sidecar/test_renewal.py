"""A renewed certificate is let ripen; what the sidecar is and whom it trusts is in its log."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from demo.pki import CertificateAuthority, write_credential
from tests.sidecar.harness import SPIFFE_ID, Authorities, Harness, harness, serial_of

_BACKDATED = timedelta(minutes=1)


def renew(folder: Path, authorities: Authorities, born: datetime, **more: Any) -> str:
    """Put a certificate into place that is valid from `born` on; its serial number."""
    issued = authorities.workloads.issue_svid(SPIFFE_ID, now=born + _BACKDATED, **more)
    write_credential(folder / "credential", issued)
    return serial_of(issued.certificate_pem)


async def presented(r: Harness, number: int) -> str:
    """The serial number the authserver sees now."""
    await r.sidecar.tick()
    assert (await r.ask(jwt=f"{number}.b.c")).status == 200
    return r.authserver.received[-1].serial


def this_second() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def test_a_renewed_certificate_waits_until_it_is_a_minute_old(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """An authserver whose clock is behind would call it not yet valid."""
    old, born = await presented(r, 1), this_second()
    new = renew(r.folder, r.authorities, born)
    for passed, serial in ((0, old), (59, old), (60, new), (61, new)):
        r.wall.now = born.timestamp() + passed
        assert await presented(r, 2 + passed) == serial
    # Waiting is no trouble.
    assert not [record for record in caplog.records if record.msg == "credential_kept"]
    assert r.metric("tokenward_credential_reloads_total", result="failed") == 0
    assert r.metric("tokenward_credential_reloads_total", result="ok") == 1


@pytest.mark.parametrize(("left", "waits"), [(121, True), (120, False), (1, False)])
async def test_a_renewed_certificate_does_not_wait_for_an_old_one_to_run_out(
    tmp_path: Path, authorities: Authorities, left: int, waits: bool
) -> None:
    born = this_second()
    long_ago, life = born - timedelta(hours=1), timedelta(hours=1, seconds=left) - _BACKDATED
    old = renew(tmp_path, authorities, long_ago, lifetime=life)
    async with harness(tmp_path, authorities, credential=False) as r:
        r.wall.now = born.timestamp()
        assert await presented(r, 1) == old
        new = renew(tmp_path, authorities, born)
        assert await presented(r, 2) == (old if waits else new)


async def test_a_first_certificate_does_not_wait(tmp_path: Path, authorities: Authorities) -> None:
    async with harness(tmp_path, authorities, credential=False) as r:
        born = this_second()
        r.wall.now = born.timestamp()
        new = renew(tmp_path, authorities, born)
        assert await presented(r, 1) == new


async def test_a_new_ca_does_not_wait_for_a_young_certificate(
    tmp_path: Path, authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tokenward")
    born = this_second()
    renew(tmp_path, authorities, born)
    async with harness(tmp_path, authorities, credential=False) as r:
        r.wall.now = born.timestamp()
        assert await presented(r, 1)
        successor = CertificateAuthority.create("successor")
        with (tmp_path / "authserver-ca.pem").open("ab") as bundle:
            bundle.write(successor.certificate_pem)
        await r.sidecar.tick()
        both = sorted(print_of(ca) for ca in (authorities.server, successor))
        assert trusted(caplog) == [[print_of(authorities.server)], both]


def print_of(ca: CertificateAuthority) -> str:
    return ca.certificate.fingerprint(hashes.SHA256()).hex()


def trusted(caplog: pytest.LogCaptureFixture) -> list[list[str]]:
    records = [record for record in caplog.records if record.msg == "authserver_ca_trusted"]
    return [vars(record)["fields"]["sha256"] for record in records]


async def test_the_log_says_at_the_start_who_it_is_and_whom_it_trusts(
    tmp_path: Path, authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    """S19."""
    caplog.set_level("INFO", "tokenward")
    async with harness(tmp_path, authorities) as r:
        for _ in range(3):
            await r.sidecar.tick()
    (loaded,) = [record for record in caplog.records if record.msg == "credential_loaded"]
    assert vars(loaded)["fields"]["spiffe_id"] == SPIFFE_ID
    assert trusted(caplog) == [[print_of(authorities.server)]]


async def test_an_authority_that_is_not_fit_never_replaces_the_one_in_use(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    early = CertificateAuthority.create("new", now=datetime.now(UTC) + timedelta(days=2))
    with (r.folder / "authserver-ca.pem").open("ab") as bundle:
        bundle.write(early.certificate_pem)
    assert await presented(r, 1)
    (kept,) = [record for record in caplog.records if record.msg == "credential_kept"]
    assert f"authority {print_of(early)} is not yet valid" in vars(kept)["fields"]["problem"]
    assert r.metric("tokenward_credential_reloads_total", result="failed") == 1


async def test_an_expired_authority_is_left_out_and_costs_nobody_the_others(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """Decision 22."""
    assert r.metric("tokenward_expired_cas") == 0
    stale = CertificateAuthority.create("old", now=datetime.now(UTC) - timedelta(days=2))
    with (r.folder / "authserver-ca.pem").open("ab") as bundle:
        bundle.write(stale.certificate_pem)
    assert await presented(r, 2)
    (record,) = [record for record in caplog.records if record.msg == "expired_cas_left_out"]
    assert vars(record)["fields"]["sha256"] == (print_of(stale),)
    assert r.metric("tokenward_expired_cas") == 1
    assert r.metric("tokenward_credential_reloads_total", result="ok") == 1
