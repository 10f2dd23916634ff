"""The workload's own certificate: late, wrong, rotated in every ugly form, run out."""

import asyncio
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from demo.pki import CertificateAuthority, Issued, write_credential
from tests.fakes.authserver import held_until
from tests.sidecar.harness import SPIFFE_ID, Authorities, Harness, harness, restart, serial_of


def ready(r: Harness) -> bool:
    return "credential" not in r.sidecar.readiness.missing


def warnings(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    records = [record for record in caplog.records if record.msg == event]
    return [vars(record)["fields"]["problem"] for record in records]


async def presented(r: Harness, number: int) -> str:
    """The serial number under which a call that memory cannot answer reached the authserver."""
    assert (await r.ask(jwt=f"{number}.b.c")).status == 200
    return r.authserver.received[-1].serial


async def test_a_credential_that_comes_late_is_waited_for(
    tmp_path: Path, authorities: Authorities, caplog: pytest.LogCaptureFixture
) -> None:
    async with harness(tmp_path, authorities, credential=False) as r:
        reply = await r.ask()
        assert (reply.status, reply.json["action"]) == (503, "retry")
        assert "Retry-After" in reply.headers
        assert not ready(r)
        for _ in range(3):
            await r.sidecar.tick()
        assert len(warnings(caplog, "credential_unusable")) == 1
        r.write_credential()
        await r.sidecar.tick()
        assert ready(r)
        assert (await r.ask()).status == 200


async def test_an_empty_folder_is_waited_for_too(tmp_path: Path, authorities: Authorities) -> None:
    (tmp_path / "credential").mkdir()
    async with harness(tmp_path, authorities, credential=False) as r:
        assert (await r.ask()).status == 503
        r.write_credential()
        await r.sidecar.tick()
        assert (await r.ask()).status == 200


async def test_a_ca_file_that_comes_late_is_waited_for(
    tmp_path: Path, authorities: Authorities
) -> None:
    late = tmp_path / "late-ca.pem"
    async with harness(tmp_path, authorities, AUTHSERVER_CA_FILE=str(late)) as r:
        assert (await r.ask()).status == 503
        shutil.copy(tmp_path / "authserver-ca.pem", late)
        await r.sidecar.tick()
        assert ready(r)
        assert (await r.ask()).status == 200


def other_workload(ca: CertificateAuthority) -> Issued:
    return ca.issue_svid(SPIFFE_ID.replace("github", "gitlab"))


def other_trust_domain(ca: CertificateAuthority) -> Issued:
    return ca.issue_svid(SPIFFE_ID.replace("example.org", "example.com"))


def longer_name(ca: CertificateAuthority) -> Issued:
    return ca.issue_svid(SPIFFE_ID + "2")


def two_names(ca: CertificateAuthority) -> Issued:
    names = [x509.UniformResourceIdentifier(uri) for uri in (SPIFFE_ID, "https://a.example")]
    roles = [ExtendedKeyUsageOID.CLIENT_AUTH]
    return ca._issue([*names], roles, timedelta(hours=1), datetime.now(UTC))


def no_name(ca: CertificateAuthority) -> Issued:
    names = [x509.DNSName("github")]
    roles = [ExtendedKeyUsageOID.CLIENT_AUTH]
    return ca._issue([*names], roles, timedelta(hours=1), datetime.now(UTC))


def of_a_server(ca: CertificateAuthority) -> Issued:
    return ca.issue_server()


def expired(ca: CertificateAuthority) -> Issued:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return ca.issue_svid(SPIFFE_ID, lifetime=timedelta(hours=1), now=yesterday)


def of_tomorrow(ca: CertificateAuthority) -> Issued:
    return ca.issue_svid(SPIFFE_ID, now=datetime.now(UTC) + timedelta(days=1))


WRONG = [
    other_workload,
    other_trust_domain,
    longer_name,
    two_names,
    no_name,
    of_a_server,
    expired,
    of_tomorrow,
]


@pytest.mark.parametrize("issue", WRONG)
async def test_with_a_certificate_that_is_not_its_own_the_sidecar_is_not_ready(
    tmp_path: Path,
    authorities: Authorities,
    issue: Callable[[CertificateAuthority], Issued],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_credential(tmp_path / "credential", issue(authorities.workloads))
    async with harness(tmp_path, authorities, credential=False) as r:
        assert not ready(r)
        assert (await r.ask()).status == 503
        assert not r.authserver.received
        [problem] = warnings(caplog, "credential_unusable")
        assert "tls.crt" in problem


@pytest.mark.parametrize("issue", WRONG)
async def test_a_certificate_that_is_not_its_own_never_replaces_the_one_in_use(
    r: Harness, issue: Callable[[CertificateAuthority], Issued], caplog: pytest.LogCaptureFixture
) -> None:
    before = await presented(r, 1)
    write_credential(r.folder / "credential", issue(r.authorities.workloads))
    for _ in range(3):
        await r.sidecar.tick()
    assert await presented(r, 2) == before
    assert ready(r)
    assert len(warnings(caplog, "credential_kept")) == 1
    assert r.metric("tokenward_credential_reloads_total", result="failed") == 3


async def test_after_a_rotation_the_new_certificate_is_used_and_the_old_connection_gone(
    r: Harness,
) -> None:
    before = await presented(r, 1)
    renewed = r.write_credential()
    assert await presented(r, 2) == before
    await r.sidecar.tick()
    assert await presented(r, 3) == renewed
    await r.until(lambda: r.authserver.connections == 1)
    assert r.metric("tokenward_credential_reloads_total", result="ok") == 1


async def test_an_exchange_under_way_survives_the_rotation(r: Harness) -> None:
    before = await presented(r, 1)
    released = asyncio.Event()
    r.authserver.then_slowly(held_until(released))
    waiting = asyncio.create_task(r.ask(jwt="2.b.c"))
    await r.authserver.until_received(2)
    renewed = r.write_credential()
    await r.sidecar.tick()
    assert await presented(r, 3) == renewed
    released.set()
    assert (await waiting).status == 200
    assert [request.serial for request in r.authserver.received] == [before, before, renewed]
    await r.until(lambda: r.authserver.connections == 1)


def new_certificate_first(folder: Path, renewed: Issued) -> None:
    (folder / "tls.crt").write_bytes(renewed.chain)


def new_key_first(folder: Path, renewed: Issued) -> None:
    (folder / "tls.key").write_bytes(renewed.key_pem)


def half_a_certificate(folder: Path, renewed: Issued) -> None:
    (folder / "tls.crt").write_bytes(renewed.chain[: len(renewed.chain) // 2])


def half_a_key(folder: Path, renewed: Issued) -> None:
    (folder / "tls.crt").write_bytes(renewed.chain)
    (folder / "tls.key").write_bytes(renewed.key_pem[: len(renewed.key_pem) // 2])


def empty_files(folder: Path, _: Issued) -> None:
    (folder / "tls.crt").write_bytes(b"")
    (folder / "tls.key").write_bytes(b"")


def no_files(folder: Path, _: Issued) -> None:
    (folder / "tls.crt").unlink()
    (folder / "tls.key").unlink()


def no_folder(folder: Path, _: Issued) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "half_way",
    [
        new_certificate_first,
        new_key_first,
        half_a_certificate,
        half_a_key,
        empty_files,
        no_files,
        no_folder,
    ],
)
async def test_a_rotation_seen_half_way_is_waited_out(
    r: Harness, half_way: Callable[[Path, Issued], None]
) -> None:
    before = await presented(r, 1)
    renewed = r.authorities.workloads.issue_svid(SPIFFE_ID)
    half_way(r.folder / "credential", renewed)
    await r.sidecar.tick()
    assert await presented(r, 2) == before
    assert ready(r)
    write_credential(r.folder / "credential", renewed)
    await r.sidecar.tick()
    assert await presented(r, 3) == serial_of(renewed.certificate_pem)


async def test_a_folder_that_is_swapped_by_a_link_is_followed(
    tmp_path: Path, authorities: Authorities
) -> None:
    volume = tmp_path / "credential"
    volume.mkdir()

    def publish(version: str) -> str:
        issued = authorities.workloads.issue_svid(SPIFFE_ID)
        write_credential(volume / version, issued)
        link = volume / "..data_tmp"
        link.symlink_to(version)
        link.rename(volume / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"..data/{name}")
        return serial_of(issued.certificate_pem)

    first = publish("..v1")
    async with harness(tmp_path, authorities, credential=False) as r:
        assert await presented(r, 1) == first
        second = publish("..v2")
        shutil.rmtree(volume / "..v1")
        await r.sidecar.tick()
        assert await presented(r, 2) == second


async def test_a_bundle_file_is_read_and_rotated(tmp_path: Path, authorities: Authorities) -> None:
    volume = tmp_path / "credential"
    volume.mkdir()

    def publish() -> str:
        issued = authorities.workloads.issue_svid(SPIFFE_ID)
        (volume / "credential-bundle.pem").write_bytes(issued.key_pem + issued.chain)
        return serial_of(issued.certificate_pem)

    first = publish()
    async with harness(tmp_path, authorities, credential=False) as r:
        assert await presented(r, 1) == first
        second = publish()
        await r.sidecar.tick()
        assert await presented(r, 2) == second


async def test_a_new_ca_of_the_authserver_takes_over_and_the_old_one_is_out(r: Harness) -> None:
    assert (await r.ask(jwt="1.b.c")).status == 200
    successor = CertificateAuthority.create("successor")
    write_credential(r.folder / "server", successor.issue_server())
    await restart(r.authserver, r.folder)
    assert (await r.ask(jwt="2.b.c")).status == 503
    (r.folder / "authserver-ca.pem").write_bytes(successor.certificate_pem)
    await r.sidecar.tick()
    assert (await r.ask(jwt="2.b.c")).status == 200
    write_credential(r.folder / "server", r.authorities.server.issue_server())
    await restart(r.authserver, r.folder)
    assert (await r.ask(jwt="3.b.c")).status == 503


async def test_a_certificate_that_runs_out_is_said_and_still_tried(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    expiry = r.metric("tokenward_credential_expiry_timestamp_seconds")
    r.wall.now = expiry - 1
    await r.sidecar.tick()
    assert ready(r)
    r.wall.now = expiry
    for _ in range(2):
        await r.sidecar.tick()
    assert not ready(r)
    assert len(warnings(caplog, "credential_unusable")) == 1
    assert (await r.ask()).status == 200  # our clock may be wrong; the authserver's decides
    r.write_credential()
    r.wall.now = datetime.now(UTC).timestamp()
    await r.sidecar.tick()
    assert ready(r)
