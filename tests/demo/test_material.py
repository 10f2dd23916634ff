"""What the demo's processes start from."""

import stat
from pathlib import Path

from authserver.config.loader import load
from chassis.spiffe_id import Workload
from demo.layout import plan
from demo.material import write_material


def test_the_authserver_accepts_the_configuration(tmp_path: Path) -> None:
    layout = plan(tmp_path)
    write_material(layout)

    settings = load(layout.config)

    assert settings.issuer == layout.issuer
    assert [entry.resource for entry in settings.resources] == [
        server.resource for server in layout.servers
    ]
    assert settings.allowed_workloads.admit(Workload("demo", "notes"))
    assert not settings.allowed_workloads.admit(Workload("demo", "stranger"))


def test_every_file_is_for_this_user_alone_and_secrets_stand_in_files_of_their_own(
    tmp_path: Path,
) -> None:
    layout = plan(tmp_path)
    write_material(layout)

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    configuration = layout.config.read_bytes()
    for secret in (layout.client_secret, layout.encryption_key):
        assert secret.read_bytes().strip() not in configuration


def test_every_port_of_a_layout_is_another_one(tmp_path: Path) -> None:
    layout = plan(tmp_path)

    ports = [
        layout.upstream_port,
        layout.public_port,
        layout.internal_port,
        layout.ops_port,
        layout.page_port,
        *(s.mcp_port for s in layout.servers),
        *(s.sidecar_port for s in layout.servers),
        *(s.ops_port for s in layout.servers),
    ]
    assert len(set(ports)) == len(ports)
