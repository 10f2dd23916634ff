"""The environment of contracts section 2."""

from pathlib import Path

import pytest

from chassis.http1.client import Host
from chassis.process import ConfigurationError
from sidecar.settings import Settings, read_settings
from tests.sidecar.harness import SPIFFE_ID, environment


def faults(variables: dict[str, str]) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as bad:
        read_settings(variables)
    return {fault.path: fault.problem for fault in bad.value.faults}


def changed(**changes: str) -> dict[str, str]:
    return environment(Path("/run/tokenward"), "https://authserver.example:8443", **changes)


def test_everything_that_is_set_is_read() -> None:
    assert read_settings(
        changed(
            LOG_LEVEL="debug",
            CACHE_TTL_MAX="30",
            OPS_HOST="127.0.0.1",
            API_PROXY="http://proxy.example:3128/",
        )
    ) == Settings(
        authserver_url="https://authserver.example:8443",
        authserver_ca=Path("/run/tokenward/authserver-ca.pem"),
        credential=Path("/run/tokenward/credential"),
        spiffe_id=SPIFFE_ID,
        resource="https://github-mcp.example.com/mcp",
        issuer="https://auth.example.com",
        scopes=("mcp", "offline_access"),
        port=0,
        ops_host="127.0.0.1",
        ops_port=0,
        log_level="debug",
        cache_ttl_max=30,
        api_proxy=Host("proxy.example", 3128),
    )


@pytest.mark.parametrize(
    "proxy",
    ["proxy.example:3128", "https://proxy.example", "http://user:password@proxy.example:3128",
     "http://proxy.example/path", "http://proxy.example/?a"],
)  # fmt: skip
def test_a_proxy_is_a_host_and_nothing_else(proxy: str) -> None:
    assert list(faults(changed(API_PROXY=proxy))) == ["TOKENWARD_API_PROXY"]


def test_what_is_left_out_or_empty_has_its_default() -> None:
    optional = (
        "RESOURCE",
        "ISSUER",
        "SCOPES",
        "PORT",
        "OPS_PORT",
        "LOG_LEVEL",
        "CACHE_TTL_MAX",
        "API_PROXY",
    )
    emptied = read_settings(changed(**dict.fromkeys(optional, "")))
    kept = {name: value for name, value in changed().items() if name[10:] not in optional}
    assert read_settings(kept) == emptied
    assert (emptied.resource, emptied.issuer, emptied.scopes) == (None, None, ())
    assert (emptied.port, emptied.ops_port, emptied.log_level) == (15500, 15501, "info")
    assert (emptied.cache_ttl_max, emptied.api_proxy) == (60, None)


def test_every_fault_is_reported_at_once() -> None:
    assert faults({"TOKENWARD_PORT": "x", "TOKENWARD_LOG_LEVEL": "loud"}).keys() == {
        "TOKENWARD_AUTHSERVER_URL",
        "TOKENWARD_AUTHSERVER_CA_FILE",
        "TOKENWARD_CREDENTIAL_DIR",
        "TOKENWARD_SPIFFE_ID",
        "TOKENWARD_PORT",
        "TOKENWARD_LOG_LEVEL",
    }


def test_variables_that_kubernetes_makes_of_a_service_are_no_fault() -> None:
    read_settings(changed() | {"TOKENWARD_SERVICE_HOST": "10.0.0.1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTHSERVER_URL", "http://authserver.example"),
        ("AUTHSERVER_URL", "authserver.example:8443"),
        ("AUTHSERVER_URL", "https://"),
        ("AUTHSERVER_URL", "https://user:pass@authserver.example"),
        ("AUTHSERVER_URL", "https://authserver.example/base"),
        ("AUTHSERVER_URL", "https://authserver.example?x=1"),
        ("AUTHSERVER_URL", "https://authserver.example#x"),
        ("AUTHSERVER_URL", "https://authserver.example:99999"),
        ("AUTHSERVER_URL", "https://[::1"),
        ("SPIFFE_ID", "github"),
        ("SPIFFE_ID", "spiffe://example.org/ns/a/sa/b"),
        ("SPIFFE_ID", SPIFFE_ID + "/"),
        ("RESOURCE", "github-mcp"),
        ("RESOURCE", 'https://a.example/"x'),
        ("RESOURCE", "https://a.example/x y"),
        ("RESOURCE", "https://a.example/#x"),
        ("ISSUER", "auth.example.com"),
        ("ISSUER", "https://auth.example.com/"),
        ("ISSUER", ""),
        ("SCOPES", 'mcp "quoted"'),
        ("SCOPES", "mcp\\"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "1e3"),
        ("PORT", "tcp://10.0.0.1:8443"),
        ("OPS_PORT", "٣"),
        ("OPS_HOST", "localhost"),
        ("OPS_HOST", "127.0.0.1:1"),
        ("LOG_LEVEL", "INFO"),
        ("CACHE_TTL_MAX", "61"),
        ("CACHE_TTL_MAX", "0.5"),
    ],
)
def test_a_bad_value_is_a_fault_under_its_own_name(name: str, value: str) -> None:
    assert faults(changed(**{name: value})).keys() == {f"TOKENWARD_{name}"}


def test_a_fault_never_repeats_what_was_set() -> None:
    assert "canary" not in str(
        faults(changed(AUTHSERVER_URL="https://user:canary@a", PORT="canary"))
    )


def test_the_two_ports_differ() -> None:
    assert faults(changed(PORT="8080", OPS_PORT="8080")).keys() == {"TOKENWARD_OPS_PORT"}
