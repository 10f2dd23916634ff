"""What the webhook writes into the sidecar's environment is what the sidecar reads."""

from typing import Any

import pytest

from tests.webhook.pods import environment, injected, pod, settings, sidecar_of

sidecar_settings: Any = pytest.importorskip("sidecar.settings")


def test_the_injected_environment_configures_the_sidecar() -> None:
    under = settings(profiles={"default": {"scopes": ["mcp", "read"]}})
    asked = {"resource": "https://mcp.example.com/mcp", "port": "16000", "log-level": "debug"}
    found = environment(sidecar_of(injected(pod(asked), under)))
    read = sidecar_settings.read_settings(found)
    assert read.spiffe_id == "spiffe://example.org/ns/mcp-servers/mcpserver/github"
    assert read.authserver_url == under.authserver.url
    assert (read.resource, read.issuer) == (asked["resource"], under.issuer)
    assert read.scopes == ("mcp", "read")
    assert (read.port, read.ops_port, read.log_level) == (16000, 15501, "debug")
    assert str(read.credential) == found["TOKENWARD_CREDENTIAL_DIR"]
    assert str(read.authserver_ca) == found["TOKENWARD_AUTHSERVER_CA_FILE"]
