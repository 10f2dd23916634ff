"""How long each step of a refresh may take."""

from authserver.values import Value


class RefreshTimeouts(Value, frozen=True):
    """Seconds. `lease` has to be longer than any flight whose process and database are alive."""

    # A caller waits so long for a token; a flight goes on without it.
    wait: float = 20.0
    flight: float = 15.0
    # After that nobody is behind a claim, and another may take it over.
    lease: int = 60
    # Between two looks at another's claim.
    poll: float = 0.1
    # A call that is older makes its upstream a slow one.
    slow_call: float = 2.0
    # Between tries to store a result, and then again and again.
    store_pauses: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    max_store_pause: float = 0.8
