"""The signed-in user's upstream token for MCP servers in Python, from the Tokenward sidecar.

`TokenwardMiddleware` asks the sidecar before a tool runs and answers the MCP client 401, 403 or 503
where there is no token. `await token()` gives the tool the token of the request it answers.
"""

from tokenward_mcp.caller import NoCaller, token, token_sync, with_token, with_token_sync
from tokenward_mcp.elicitation import url_elicitation
from tokenward_mcp.errors import (
    InsufficientScope,
    SignInRequired,
    TemporarilyUnavailable,
    TokenError,
)
from tokenward_mcp.middleware import TokenwardMiddleware

__all__ = [
    "InsufficientScope",
    "NoCaller",
    "SignInRequired",
    "TemporarilyUnavailable",
    "TokenError",
    "TokenwardMiddleware",
    "token",
    "token_sync",
    "url_elicitation",
    "with_token",
    "with_token_sync",
]
