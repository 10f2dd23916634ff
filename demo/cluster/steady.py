"""`python -m demo.cluster.steady --calls N`: sign in once, then call a tool once a second.

For drills: somebody breaks something meanwhile. Each call that fails is printed with what the MCP
server said; it exits with 1 where the last call failed.
"""

import asyncio
import logging
import sys
from argparse import ArgumentParser

from mcp import MCPError

from demo.cluster.places import Places
from demo.mcp_client import ToolFailed, sign_in
from demo.upstream import USERS

_PAUSE_SECONDS = 1.0


async def call(times: int) -> int:
    """How many calls failed after the last one that did not."""
    user, failed, failed_last = USERS["alice"], 0, 0
    server = Places().servers[0]
    async with sign_in(
        server.resource, username=user.login, password=user.password, on_hop=lambda _: None
    ) as connection:
        _say("signed in")
        for number in range(times):
            try:
                await connection.whoami()
                failed_last = 0
            except (ToolFailed, MCPError) as refused:
                failed, failed_last = failed + 1, failed_last + 1
                _say(f"call {number} failed: {refused}")
            await asyncio.sleep(_PAUSE_SECONDS)
    _say(f"{times} calls, {failed} failed")
    return failed_last


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m demo.cluster.steady", description=__doc__)
    parser.add_argument("--calls", type=int, required=True)
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    sys.exit(1 if asyncio.run(call(parser.parse_args().calls)) else 0)
