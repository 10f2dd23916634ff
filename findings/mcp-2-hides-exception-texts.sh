#!/usr/bin/env bash
# mcp 2.x (official Python SDK): a tool's exception reaches the client without its text.
#
# Version 1 answers "Error executing tool NAME: TEXT" for every exception. Version 2 leaves the text out
# unless the exception is a ToolError, so a message that a library raises for the user, with a link to
# open or a request id, is lost after the upgrade. Nothing fails; the user is left without a way on.
#
# Prints what a client gets in both versions; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/show.py" <<'PY'
import asyncio
import sys
from importlib.metadata import version

if version("mcp").startswith("1."):
    from mcp.server.fastmcp import FastMCP as MCPServer
    from mcp.server.fastmcp.exceptions import ToolError
    from mcp.shared.memory import create_connected_server_and_client_session
else:
    from mcp import Client
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("show", log_level="CRITICAL")


@server.tool()
def plain() -> str:
    raise RuntimeError("open https://example.com/connect")


@server.tool()
def tool_error() -> str:
    raise ToolError("open https://example.com/connect")


async def main() -> list[str]:
    if version("mcp").startswith("1."):
        connected = create_connected_server_and_client_session(server._mcp_server)
    else:
        connected = Client(server)
    async with connected as client:
        results = [await client.call_tool(name, {}) for name in ("plain", "tool_error")]
    return [result.content[0].text for result in results]


plain_text, tool_error_text = asyncio.run(main())
print("mcp", version("mcp"))
print("  RuntimeError:", plain_text)
print("  ToolError:   ", tool_error_text)
shown = "https://example.com/connect" in plain_text
assert "https://example.com/connect" in tool_error_text, "this has changed"
assert shown == version("mcp").startswith("1."), "this has changed"
PY
for version in 1.30.0 2.3.0; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet --disable-pip-version-check "mcp==$version"
  "$work/$version/bin/python" "$work/show.py"
done
