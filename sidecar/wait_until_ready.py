"""`python -S -m sidecar.wait_until_ready`: the sidecar's postStart hook.

The kubelet starts the pod's next container when it returns. A start-up probe is asked once a
second at best; this asks after a hundredth of a second, and then ever less often. It exits with 1
where the sidecar does not become ready, and prints why: the kubelet shows that with the container,
which it then starts anew.

It is a second Python beside the starting sidecar, so it imports little.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

DEFAULT_OPS_PORT: Final = 15501

# A node that starts many pods at once is slow. A sidecar that answers and says what it lacks will
# hardly get it; the kubelet shows no log of it for as long as we wait.
LISTENING_SECONDS: Final = 60.0
READY_SECONDS: Final = 10.0

# A pause is a tenth of the time so far: where many pods start at once, asking must not take the
# CPU from those who are to answer.
_PAUSE_SHARE: Final = 0.1
_LEAST_PAUSE_SECONDS: Final = 0.01
_MOST_PAUSE_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 2.0
_REQUEST: Final = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_MOST_BYTES: Final = 4096


def wait(
    probe: Callable[[], tuple[int, str] | None],
    *,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until the sidecar is ready. Returns why it is not; empty when it is.

    `probe` returns the status and the text of an answer, None while nobody answers.
    """
    begun, answered_at, reason = now(), None, "nobody answers"
    while True:
        answer = probe()
        if answer is not None:
            status, reason = answer
            if status == 200:
                return ""
            answered_at = now() if answered_at is None else answered_at
        end = begun + LISTENING_SECONDS if answered_at is None else answered_at + READY_SECONDS
        if now() >= end:
            return f"the sidecar is not ready: {reason}"
        share = (now() - begun) * _PAUSE_SHARE
        pause(min(max(share, _LEAST_PAUSE_SECONDS), _MOST_PAUSE_SECONDS))


def probe(port: int) -> tuple[int, str] | None:
    """What `/readyz` answers on this pod's loopback; None where there is no whole answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as connection:
            connection.sendall(_REQUEST)
            return _read(connection)
    except OSError:
        return None


def _read(connection: socket.socket) -> tuple[int, str] | None:
    received = b""
    while len(received) < _MOST_BYTES and (some := connection.recv(_MOST_BYTES)):
        received += some
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return None
    return int(words[1]), body.decode("utf-8", "replace").strip()


def main(environment: Mapping[str, str]) -> int:
    port = environment.get("TOKENWARD_OPS_PORT", "")
    number = int(port) if port.isdecimal() else DEFAULT_OPS_PORT
    problem = wait(lambda: probe(number))
    if problem:
        print(problem)  # noqa: T201 - the kubelet reads it
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(os.environ))  # noqa: TID251 - as the webhook wrote it
