"""How a tool passes a link on: the documented function, in a server that a real client calls."""

import re
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp.types import ElicitRequestParams, ElicitResult

from tokenward_mcp import SignInRequired, TokenError, url_elicitation

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/get-a-token.md"
LINK = "https://auth.example.com/connect/sealed"


def refusal(connect_url: str | None = LINK) -> SignInRequired:
    return SignInRequired(
        "reauthentication_required",
        "Connect your GitHub account.",
        status=401,
        action="reauthenticate",
        request_id="req-1",
        connect_url=connect_url,
    )


def server(error: TokenError) -> MCPServer:
    """A server whose one tool meets this refusal and does what the page says."""
    (code,) = re.findall(r"```python elicitation\n(.*?)```", PAGE.read_text(), re.DOTALL)
    documented: dict[str, Any] = {}
    exec(compile(code, "get-a-token.md", "exec"), documented)
    made = MCPServer("notes")

    async def repositories(context: Context) -> str:
        raise documented["with_link"](error, context) from None

    made.tool()(repositories)
    return made


async def accept(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept")


async def test_a_client_with_url_elicitation_is_asked_to_open_the_link() -> None:
    async with Client(server(refusal()), elicitation_callback=accept) as client:
        with pytest.raises(UrlElicitationRequiredError) as raised:
            await client.call_tool("repositories", {})
    assert raised.value.error.code == -32042
    (asked,) = raised.value.elicitations
    assert (asked.mode, asked.url, asked.message) == ("url", LINK, "Connect your GitHub account.")
    assert asked.elicitation_id


@pytest.mark.parametrize("capable", [True, False])
async def test_any_other_client_shows_a_text_with_what_there_is(capable: bool) -> None:
    link = None if capable else LINK
    callback = accept if capable else None
    async with Client(server(refusal(link)), elicitation_callback=callback) as client:
        result = await client.call_tool("repositories", {})
    assert result.is_error
    text = " ".join(getattr(block, "text", "") for block in result.content)
    assert "Connect your GitHub account." in text
    assert (LINK in text) is not capable


def test_one_link_is_one_question() -> None:
    first, again = url_elicitation(refusal()), url_elicitation(refusal())
    other = url_elicitation(refusal(f"{LINK}2"))
    assert first is not None
    assert other is not None
    assert first == again
    assert first["elicitationId"] != other["elicitationId"]
    assert url_elicitation(refusal(None)) is None
