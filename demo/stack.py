"""Starts everything one run needs, each part as its own process, and says when all are ready."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from demo.layout import CLIENT_ID, HOST, SCOPE, UPSTREAM, UPSTREAM_TOKEN_SECONDS, Layout, Server
from demo.processes import Processes

# An MCP server's author would install it.
_AUTHORS_PACKAGE: Final = Path(__file__).resolve().parent.parent / "integrations/python/src"


async def start(layout: Layout, processes: Processes) -> None:
    """Raises ProcessFailed when a part does not come up."""
    await start_upstream(layout, processes)
    await processes.ready("upstream", f"{layout.upstream}/.well-known/openid-configuration")
    await start_beside_upstream(layout, processes)


async def start_beside_upstream(layout: Layout, processes: Processes) -> None:
    """The same where the upstream runs already, in a process of its own or the caller's."""
    await start_authserver(layout, processes)
    for server in layout.servers:
        await start_sidecar(layout, server, processes)
        await start_mcp_server(layout, server, processes)
    probes = {"authserver": f"{layout.ops}/readyz"}
    for server in layout.servers:
        probes[f"sidecar-{server.name}"] = f"{server.ops}/readyz"
        probes[f"mcp-{server.name}"] = server.probe
    for name, url in probes.items():
        await processes.ready(name, url)


async def start_authserver(layout: Layout, processes: Processes) -> None:
    await processes.start("authserver", "authserver", "--config", str(layout.config))


async def start_upstream(
    layout: Layout, processes: Processes, *, token_seconds: int = UPSTREAM_TOKEN_SECONDS
) -> None:
    """Start the fake upstream; its access tokens live for `token_seconds`."""
    await processes.start(
        "upstream",
        "demo.upstream",
        f"--port={layout.upstream_port}",
        f"--client-id={CLIENT_ID}",
        f"--client-secret-file={layout.client_secret}",
        f"--redirect-uri={layout.callback}",
        f"--access-token-lifetime={token_seconds}",
        f"--api-port={layout.api_port}",
        f"--api-credential={layout.api_credential}",
    )


async def start_sidecar(
    layout: Layout, server: Server, processes: Processes, *, scopes: str = SCOPE
) -> None:
    environment = sidecar_environment(layout, server) | {"TOKENWARD_SCOPES": scopes}
    await processes.start(f"sidecar-{server.name}", "sidecar", environment=environment)


def sidecar_environment(layout: Layout, server: Server) -> dict[str, str]:
    """What the webhook would write into the pod of `server`; here everything stays on loopback."""
    variables = {
        "TOKENWARD_AUTHSERVER_URL": layout.internal,
        "TOKENWARD_AUTHSERVER_CA_FILE": str(layout.server_ca),
        "TOKENWARD_CREDENTIAL_DIR": str(server.credential),
        "TOKENWARD_SPIFFE_ID": server.spiffe_id,
        "TOKENWARD_RESOURCE": server.resource,
        "TOKENWARD_ISSUER": layout.issuer,
        "TOKENWARD_SCOPES": SCOPE,
        "TOKENWARD_PORT": str(server.sidecar_port),
        "TOKENWARD_OPS_HOST": "127.0.0.1",
        "TOKENWARD_OPS_PORT": str(server.ops_port),
    }
    if server.app_port is not None:
        variables |= {
            "TOKENWARD_GATEWAY": f"{server.mcp_port}:{server.app_port}",
            "TOKENWARD_GATEWAY_HOST": HOST,
            "TOKENWARD_GATEWAY_OPEN_PATHS": "/healthz",
        }
    return variables


async def start_mcp_server(
    layout: Layout,
    server: Server,
    processes: Processes,
    *,
    scopes: str = SCOPE,
    program: str = "demo.mcp_server",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """`program` takes the sample server's command line; `environment` is beside its own."""
    if server.app_port is not None:
        await processes.start(
            f"mcp-{server.name}",
            "demo.plain_server",
            f"--name={server.name}",
            f"--port={server.app_port}",
            environment={"API_URL": f"{server.sidecar}/upstream/{UPSTREAM}"},
        )
        return
    await processes.start(
        f"mcp-{server.name}",
        program,
        f"--name={server.name}",
        f"--port={server.mcp_port}",
        f"--resource={server.resource}",
        f"--issuer={layout.issuer}",
        f"--scopes={scopes}",
        f"--api={layout.upstream}",
        environment={
            "TOKENWARD_URL": server.sidecar,
            "PYTHONPATH": str(_AUTHORS_PACKAGE),
            **environment,
        },
    )
