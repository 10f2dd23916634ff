"""How long the sidecar waits for whom, in seconds: all of it here, since each depends on others."""

from typing import Final, NamedTuple

# Longer than `shutdown`, and SIGTERM leaves us two seconds.
DRAIN_SECONDS: Final = 1.2


class Timeouts(NamedTuple):
    """`head` and `body`: a local caller sends its request.

    `exchange`: the authserver answers, retries included; with the two seconds between looks at
    the credential this also bounds how long connections of a replaced one stay open.
    `wait`: a caller waits for an exchange, its own or one under way; longer than `exchange`, so
    that the exchange ends first and its outcome is known.
    `shutdown`: exchanges in flight at SIGTERM end; their callers still get a response.
    `api_head`: an API answers a call that was sent to its end; some of them work for a while.
    `api_piece`: each piece of an API's answer arrives; event streams may be silent for long.
    `first_event`: how long the gateway holds the head of a stream of events back, so that it can
    still say that a scope is missing; clients wait longer for a head.
    """

    head: float = 10.0
    body: float = 10.0
    exchange: float = 8.0
    wait: float = 9.0
    shutdown: float = 1.0
    api_head: float = 120.0
    api_piece: float = 600.0
    first_event: float = 10.0


DEFAULT: Final = Timeouts()
