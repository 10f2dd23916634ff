"""A refusal's link as a question to the user: URL-mode elicitation of MCP (2025-11-25)."""

import hashlib

from tokenward_mcp.errors import TokenError


def url_elicitation(error: TokenError) -> dict[str, str] | None:
    """The parameters of an elicitation that asks the user to open the refusal's `connect_url`.

    `mode`, `message`, `url` and `elicitationId`, as an `elicitation/create` request or the data of
    a URLElicitationRequiredError (-32042) has them. None where the refusal has no link. One link
    has one id, so a client that asks twice shows one question.
    """
    if error.connect_url is None:
        return None
    return {
        "mode": "url",
        "message": error.error_description,
        "url": error.connect_url,
        "elicitationId": hashlib.sha256(error.connect_url.encode()).hexdigest()[:32],
    }
