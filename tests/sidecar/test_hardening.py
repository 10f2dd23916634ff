"""What the process sheds, and where it does not start."""

from pathlib import Path

import pytest

from chassis.http1.listener import Listener
from chassis.http1_probes import ops_server
from chassis.process import StartFailed, serve
from sidecar.app import build, local_listener
from sidecar.hardening import scrub_environment, uses_host_network
from sidecar.settings import read_settings
from tests.sidecar.harness import environment

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
KUBELET_API = "   0: 00000000000000000000000000000000:280A 0000:0000 0A 00000000:00000000 00:0 0\n"
KUBELET_HEALTH = "   0: 0100007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n"
CONNECTED = "   1: 0100007F:280A 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0\n"
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    "name",
    [
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "NO_PROXY",
        "SSLKEYLOGFILE",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "PYTHONPATH",
        "PYTHONSTARTUP",
    ],
)
def test_variables_that_bend_tls_or_the_interpreter_are_dropped(name: str) -> None:
    variables = {name: "canary", "PATH": "/bin", "TOKENWARD_PORT": "0"}
    scrub_environment(variables)
    assert variables == {
        "PATH": "/bin",
        "TOKENWARD_PORT": "0",
        "SSL_CERT_FILE": "/dev/null",
        "SSL_CERT_DIR": "/nonexistent",
    }


def test_the_systems_trust_store_is_replaced_by_nothing() -> None:
    variables = {"SSL_CERT_FILE": "/etc/ssl/cert.pem", "SSL_CERT_DIR": "/etc/ssl/certs"}
    scrub_environment(variables)
    assert variables == {"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/nonexistent"}


def proc(folder: Path, tcp: str, tcp6: str) -> Path:
    (folder / "net").mkdir()
    (folder / "net/tcp").write_text(HEADER + tcp)
    (folder / "net/tcp6").write_text(HEADER + tcp6)
    return folder


def test_a_pod_beside_the_kubelet_is_on_its_nodes_network(tmp_path: Path) -> None:
    tables = proc(tmp_path, KUBELET_HEALTH, KUBELET_API)
    assert uses_host_network(POD, tables)
    assert not uses_host_network({}, tables)  # a developer's machine that runs a node


@pytest.mark.parametrize(
    ("tcp", "tcp6"),
    [("", ""), ("", KUBELET_API), (KUBELET_HEALTH, ""), (KUBELET_HEALTH, CONNECTED)],
)
def test_a_pod_with_a_network_of_its_own_is_not(tmp_path: Path, tcp: str, tcp6: str) -> None:
    assert not uses_host_network(POD, proc(tmp_path, tcp, tcp6))


def test_where_it_cannot_be_known_nothing_is_claimed(tmp_path: Path) -> None:
    assert not uses_host_network(POD, tmp_path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_the_local_api_does_not_start_where_others_can_reach_it(
    tmp_path: Path, host: str
) -> None:

    sidecar = build(read_settings(environment(tmp_path, "https://authserver.example")))
    listener = local_listener(sidecar, 0)
    assert (listener.host, listener.loopback_only) == ("127.0.0.1", True)

    with pytest.raises(StartFailed, match="loopback"):
        await serve(
            [listener._replace(host=host)],
            ops=Listener("ops", "127.0.0.1", 0, ops_server(sidecar.readiness, sidecar.registry)),
            readiness=sidecar.readiness,
            drain_seconds=0,
        )
    assert "listening" in sidecar.readiness.missing
    await sidecar.close()
