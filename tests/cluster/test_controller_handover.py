"""Two replicas of the controller: one that is stopped or killed is followed, and writes no more."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from time import monotonic, sleep

import pytest

from tests.cluster.audit_log import Request, log_file, requests_of
from tests.cluster.cluster import Object, eventually
from tests.cluster.controller import (
    Site,
    auth_server,
    kubeconfig_of,
    replica,
    server_auth,
)

# Of contracts §10: a lease of ten seconds, and a look at it every two.
_HAND_OVER_SECONDS = 15
_STOPPED_SECONDS = 20


@dataclass
class Pair:
    """Two replicas; each has a token of its own, by which the audit log tells them apart."""

    site: Site
    replicas: list[tuple[Popen[bytes], Path]]

    def holder(self) -> str:
        lease = self.site.system.get("lease", "tokenward-controller")
        return str((lease or {}).get("spec", {}).get("holderIdentity") or "")

    def leader(self) -> int:
        """Which of the two leads: it wrote its identity into its log when it began."""
        holder = eventually(self.holder, bool)
        return [holder in log.read_text() for _, log in self.replicas].index(True)

    def writes(self) -> list[Request]:
        log = log_file()
        assert log is not None
        account = f"{self.site.system.namespace}/tokenward-controller"
        return [one for one in requests_of(log, account) if one.writes]


@pytest.fixture
def pair(site: Site, tmp_path: Path) -> Iterator[Pair]:
    site.system.inside("create", "-f", "-", given=auth_server([site.tenant.namespace]))
    with ExitStack() as stack:
        started = []
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            kubeconfig = kubeconfig_of(site.system, folder)
            started.append(stack.enter_context(replica(kubeconfig, site.system, folder)))
        made = Pair(site, started)
        for process, log in started:
            eventually(lambda log=log: log.read_text(), lambda text: '"synced"' in text)  # type: ignore[misc]
            assert process.poll() is None
        yield made


def _secret(site: Site, name: str) -> Object | None:
    return site.tenant.get("secret", f"{name}-tokenward")


def _make(site: Site, name: str) -> None:
    site.tenant.inside("create", "-f", "-", given=server_auth(name, site.system.namespace))


def _followed(pair: Pair, former: str) -> float:
    """Seconds until another replica leads."""
    begun = monotonic()
    eventually(pair.holder, lambda holder: holder not in ("", former))
    return monotonic() - begun


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_a_leader_that_ends_is_followed(pair: Pair, how: signal.Signals) -> None:
    process, _ = pair.replicas[pair.leader()]
    former = pair.holder()
    process.send_signal(how)
    assert _followed(pair, former) <= _HAND_OVER_SECONDS
    _make(pair.site, "after")
    eventually(lambda: _secret(pair.site, "after"), bool)


@pytest.mark.timeout(300)
def test_a_leader_that_was_stopped_writes_nothing_when_it_goes_on(pair: Pair) -> None:
    if log_file() is None:
        pytest.skip("the API server writes no audit log here")
    process, log = pair.replicas[pair.leader()]
    former = pair.holder()
    _make(pair.site, "before")
    eventually(lambda: _secret(pair.site, "before"), bool)
    stopped_credentials = {one.credential for one in pair.writes()}
    process.send_signal(signal.SIGSTOP)
    begun = monotonic()
    try:
        assert _followed(pair, former) <= _HAND_OVER_SECONDS
        _make(pair.site, "meanwhile")
        eventually(lambda: _secret(pair.site, "meanwhile"), bool)
        sleep(max(0.0, _STOPPED_SECONDS - (monotonic() - begun)))
    finally:
        process.send_signal(signal.SIGCONT)
    resumed = len(pair.writes())
    eventually(log.read_text, lambda text: '"leader_lost"' in text)
    _make(pair.site, "after")
    eventually(lambda: _secret(pair.site, "after"), bool)
    later = pair.writes()[resumed:]
    assert later
    (_,) = stopped_credentials
    assert not [one for one in later if one.credential in stopped_credentials]
