"""Walks the journey of a server without OAuth, behind the gateway, whose resource is Attach only.

The proof is in the memory of its process: the upstream's token was never there. The same search
finds the token in the process of the server that has it handed out.
"""

import asyncio
from typing import Final

from demo.findings import Findings
from demo.gauges import Gauges
from demo.layout import Layout
from demo.mcp_client import sign_in
from demo.narration import Narrator
from demo.process_memory import holds_any
from demo.processes import Processes
from demo.upstream import USERS

_LEAST_TOKENS: Final = 2  # one of the hand-out's connection, one of this server's own


class UnmodifiedServer:
    """Alice uses the server behind the gateway."""

    def __init__(
        self,
        layout: Layout,
        gauges: Gauges,
        processes: Processes,
        narrator: Narrator,
        findings: Findings,
    ) -> None:
        self._layout, self._gauges, self._processes = layout, gauges, processes
        self._tell, self._findings = narrator, findings
        self._handed_out = layout.servers[0]
        self._server = next(one for one in layout.servers if one.app_port is not None)

    async def walk(self) -> None:
        await self._the_door_is_closed_without_a_token()
        user = USERS["alice"]
        self._tell.chapter(
            f"{user.name} connects to {self._server.resource}: a server without any OAuth in it, "
            "behind the gateway, whose resource is Attach only"
        )
        async with sign_in(
            self._server.resource,
            username=user.login,
            password=user.password,
            on_hop=self._tell.hop,
        ) as connection:
            own = {"login": user.login, "id": user.id, "name": user.name}
            accounts = [await connection.whoami() for _ in range(3)]
            self._findings.expect(accounts == [own] * 3, "whoami says alice, three times", accounts)
            await self._no_token_is_handed_out(connection.jwt)
        await self._search()

    async def _the_door_is_closed_without_a_token(self) -> None:
        self._tell.chapter(f"A stranger calls {self._server.resource}")
        async with self._gauges.http.post(self._server.resource, json={}) as answer:
            challenge = answer.headers.get("WWW-Authenticate", "")
            self._findings.expect(
                answer.status == 401 and self._server.resource_metadata in challenge,
                "the gateway answers 401, and says where to read about it",
                f"{answer.status} {challenge}",
            )

    async def _no_token_is_handed_out(self, jwt: str) -> None:
        headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
        url = f"{self._server.sidecar}/v1/token"
        async with self._gauges.http.post(url, headers=headers, json={}) as answer:
            error = (await answer.json()).get("error")
            self._findings.expect(
                (answer.status, error) == (403, "attach_only"),
                "its sidecar answers 403 attach_only to whoever asks for the token itself",
                f"{answer.status} {error}",
            )

    async def _search(self) -> None:
        self._tell.chapter("The memory of both servers is searched for Alice's upstream tokens")
        tokens = await self._gauges.access_tokens("alice")
        self._findings.expect(
            len(tokens) >= _LEAST_TOKENS, "the upstream says which ones it gave", len(tokens)
        )
        secrets = [token.encode() for token in tokens]
        handed, attached = [
            await asyncio.to_thread(holds_any, self._processes.pid_of(f"mcp-{name}"), secrets)
            for name in (self._handed_out.name, self._server.name)
        ]
        self._findings.expect(
            handed, f"the search finds one in {self._handed_out.name}, which has it handed out"
        )
        self._findings.expect(
            not attached, f"the process of {self._server.name} never held one: it worked without"
        )
