"""The pauses after failures, by themselves."""

from authserver.connections.backoff import Backoff


def test_failures_within_patience_cost_nothing_and_then_each_doubles_the_pause() -> None:
    backoff = Backoff(threshold=2, first=1, longest=8, uniform=lambda _, most: most)
    backoff.failed("x", 0)
    assert backoff.allow("x", 0)
    now = 0.0
    for pause in (1, 2, 4, 8, 8):
        backoff.failed("x", now)
        assert not backoff.allow("x", now + pause - 0.1)
        now += pause
        assert backoff.allow("x", now)
        assert not backoff.allow("x", now), "one at a time"
    backoff.succeeded("x")
    assert backoff.allow("x", now)
    assert backoff.allow("y", now)


def test_a_pause_is_at_least_half_of_what_it_could_be() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        asked.append((least, most))
        return least

    backoff = Backoff(threshold=1, first=4, longest=60, uniform=uniform)
    backoff.failed("x", 0)
    assert asked == [(2, 4)]
