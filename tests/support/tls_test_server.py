"""An authserver that trusts authorities of ours, and what becomes of the certificates we make."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from demo.pki import Issued, write_credential
from tests.support.deployment import Deployment, deployed
from tests.support.svid_certificates import Pair
from tests.support.workloads import UNLIMITED, AuditTrail, replica, verdict

HANDSHAKE = "handshake"


@dataclass(frozen=True)
class Site:
    """An authserver that trusts an authority of ours, and a JWT that is good for a token."""

    world: Deployment
    root: Pair
    jwt: str

    async def decided(self, issued: Issued, trail: AuditTrail) -> str | None:
        """What became of an exchange with this certificate."""
        tls = self.world.tls(None)
        tls.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that our own side sends weak ones at all
        folder = self.world.folder / secrets.token_hex(4)
        write_credential(folder, issued)
        tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        try:
            answer = await self.world.exchange_with(tls, self.jwt)
        except aiohttp.ClientError:
            assert not trail.events
            return HANDSHAKE
        if answer.status == 200:
            return None
        assert verdict(answer) == (401, {"error": "invalid_client"})
        assert answer.headers["Connection"] == "close"
        return trail.reason


@asynccontextmanager
async def trusting(folder: Path, root: Pair, *smuggled: Pair) -> AsyncIterator[Site]:
    """`smuggled` are anchors too, past everything that looks at anchors before OpenSSL does."""
    async with deployed(folder, limits=UNLIMITED) as world:
        jwt = (await world.signed_in()).access_token
        with (world.folder / "workloads.pem").open("ab") as trusted:
            trusted.write(root.pem())
        async with replica(world, b"".join(anchor.pem() for anchor in smuggled)) as open_to_root:
            yield Site(open_to_root, root, jwt)
