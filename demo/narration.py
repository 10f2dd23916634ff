"""Tells each hop of the journey in plain words, with its timing."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

from demo.browser import Hop
from demo.gauges import Tally
from demo.layout import UPSTREAM

# (who answers, path, status) -> what just happened; a status of 0 stands for any other.
_WORDS: Final = {
    ("mcp", "/mcp", 401): "needs a token, and says where to read about it",
    ("mcp", "/mcp", 0): "answers its signed-in client",
    ("mcp", "/.well-known/oauth-protected-resource/mcp", 200): "names its authorization server",
    ("authserver", "/.well-known/oauth-authorization-server", 200): "describes its endpoints",
    ("authserver", "/oauth/register", 201): "registers the client",
    ("authserver", "/oauth/authorize", 200): "asks the user; nothing has gone upstream yet",
    ("authserver", "/oauth/consent", 303): "has the user's consent and sends them upstream",
    ("authserver", "/oauth/consent", 302): "has the user's consent and sends them upstream",
    ("authserver", f"/oauth/callback/{UPSTREAM}", 303): "keeps the upstream's tokens, sealed",
    ("authserver", f"/oauth/callback/{UPSTREAM}", 302): "keeps the upstream's tokens, sealed",
    ("authserver", "/oauth/token", 200): "gives the client a JWT for this one MCP server",
    ("upstream", "/authorize", 200): "shows its login page",
    ("upstream", "/login", 303): "has checked the password and sends a code back",
}


class McpServer(Protocol):
    """An MCP server, by its name and its URL."""

    @property
    def name(self) -> str: ...

    @property
    def resource(self) -> str: ...


class Parties(Protocol):
    """Who answers in a journey: URLs of the authserver and the upstream, and the MCP servers."""

    @property
    def issuer(self) -> str: ...

    @property
    def upstream(self) -> str: ...

    @property
    def servers(self) -> Sequence[McpServer]: ...


class Narrator:
    """Numbers the hops of one chapter and prints each as it happens."""

    def __init__(self, parties: Parties, say: Callable[[str], None] = print) -> None:
        self._say = say
        self._number = 0
        self._roles = {urlsplit(parties.issuer).netloc: ("authserver", "authserver")}
        self._roles[urlsplit(parties.upstream).netloc] = ("upstream", "upstream")
        for server in parties.servers:
            self._roles[urlsplit(server.resource).netloc] = ("mcp", f"MCP server {server.name}")

    def chapter(self, title: str) -> None:
        self._number = 0
        self._say(f"\n{title}")

    def calls(self, seconds: float, tally: Tally) -> None:
        """Tell how long tool calls took in all, and where their tokens came from."""
        sources = {
            "from the sidecar's memory": tally.hits,
            "asked of the authserver over mTLS": tally.misses,
            "waiting for the same answer": tally.coalesced,
        }
        told = ", ".join(f"{count} {source}" for source, count in sources.items() if count)
        exchange = f" ({tally.exchange_seconds * 1000:.0f} ms)" if tally.misses else ""
        self._say(f"     {seconds * 1000:6.0f} ms in all; tokens: {told}{exchange}")

    def hop(self, hop: Hop) -> None:
        self._number += 1
        url = urlsplit(hop.url)
        role, name = self._roles.get(url.netloc, ("", url.netloc))
        words = _WORDS.get((role, url.path, hop.status), _WORDS.get((role, url.path, 0), "answers"))
        request = f"{hop.method} {url.path}"
        self._say(
            f"{self._number:>4} {hop.seconds * 1000:6.0f} ms  {request:<55} {hop.status}  "
            f"{name} {words}"
        )
