"""Either side's certificate is of a CA the other does not trust, then put right again.

What an authserver may be taken for that answers HTML, megabytes or drips is in
`tests/sidecar/test_exchange.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from demo.pki import CertificateAuthority, write_credential
from tests.resilience.answers import is_an_outage
from tests.resilience.pair import SPIFFE_ID, Pair, pair
from tests.support.workloads import audited


def a_server_of_another_ca(p: Pair) -> Callable[[], object]:
    """The sidecar is told to trust another CA than the authserver's; how to put it right."""
    stranger = CertificateAuthority.create("stranger")
    trusted = p.folder / "authserver-ca.pem"
    trusted.write_bytes(stranger.certificate_pem)
    return lambda: trusted.write_bytes(p.world.server_ca.certificate_pem)


def a_workload_of_another_ca(p: Pair) -> Callable[[], object]:
    """The sidecar's certificate has its name from somebody else; how to put it right."""
    stranger = CertificateAuthority.create("stranger")
    write_credential(p.folder / "credential", stranger.issue_svid(SPIFFE_ID))
    return p.rotate


@pytest.mark.parametrize("break_trust", [a_server_of_another_ca, a_workload_of_another_ca])
async def test_a_ca_that_is_not_trusted_is_an_outage_until_it_is_put_right(
    tmp_path: Path,
    break_trust: Callable[[Pair], Callable[[], object]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(tmp_path) as p:
        jwt = (await p.world.signed_in()).access_token
        assert p.user_of(await p.ask(jwt)) == "alice"
        put_right = break_trust(p)
        await p.sidecar.tick()
        with audited(caplog) as trail:
            for fresh in p.like(jwt, 3):
                assert is_an_outage(await p.ask(fresh))
        assert not trail.events
        assert p.user_of(await p.ask(jwt)) == "alice"
        put_right()
        await p.sidecar.tick()
        for fresh in p.like(jwt, 3):
            assert p.user_of(await p.ask(fresh)) == "alice"
