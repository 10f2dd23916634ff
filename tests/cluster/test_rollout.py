"""A rolling update under a real API server's HTTP client, which keeps and re-uses connections."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from tests.cluster.cluster import Cluster, Object, eventually, pointed_at
from tests.cluster.pods import named
from tests.cluster.servers import Service, served, webhook_on_this_host
from tests.support.server_certificates import Authority

_CALLERS = 4
_REPLACEMENTS = 3


def test_no_admission_fails_while_replicas_are_replaced(
    cluster: Cluster, configuration: Object, host: str, tmp_path: Path
) -> None:
    authority, service = Authority(), Service()
    done, admitted, refused = threading.Event(), count(), list[str]()

    def admit() -> None:
        while not done.is_set():
            if told := cluster.refusal(named("admitted")):
                refused.append(told)
            next(admitted)

    def replica(number: int) -> ExitStack:
        """Started and taken into the service; closing it tells it to stop, and waits."""
        folder = tmp_path / str(number)
        folder.mkdir()
        running = ExitStack()
        made = webhook_on_this_host(folder, authority, host, linger_seconds=2)
        service.replica = running.enter_context(made)
        return running

    with served(service), ExitStack() as ending, ThreadPoolExecutor(_CALLERS) as callers:
        old = ending.enter_context(replica(0))
        url = f"https://{host}:{service.server_address[1]}"
        made = pointed_at(configuration, url=url, ca=authority.pem, cluster=cluster)
        cluster.apply_everywhere(made)
        eventually(lambda: "initContainers" in cluster.dry(named("probe"))["spec"], bool)
        with ExitStack() as calling:
            calling.callback(done.set)
            for _ in range(_CALLERS):
                callers.submit(admit)
            for number in range(1, _REPLACEMENTS + 1):
                new = ending.enter_context(replica(number))
                old.close()
                old = new
    assert refused == []
    assert next(admitted) > 10 * _REPLACEMENTS
