"""Keys come once at a time, in time, and later after each failure."""

from hypothesis import given
from hypothesis import strategies as st

from controller.backoff import Backoff
from controller.work_queue import WorkQueue


def queue() -> WorkQueue[str]:
    return WorkQueue(lambda: 0.5)


def test_a_key_that_is_added_twice_comes_once() -> None:
    made = queue()
    made.add("a", 0)
    made.add("b", 0)
    made.add("a", 0)
    assert [made.take(0), made.take(0), made.take(0)] == ["a", "b", None]


def test_a_key_is_worked_on_by_one_at_a_time_and_comes_again_if_it_changed() -> None:
    made = queue()
    made.add("a", 0)
    assert made.take(0) == "a"
    made.add("a", 1)
    assert made.take(1) is None
    made.done("a", 2)
    assert made.take(2) == "a"
    made.done("a", 3)
    assert made.take(3) is None


def test_a_later_key_comes_at_the_earliest_time_asked_for() -> None:
    made = queue()
    made.add_at("a", 10)
    made.add_at("a", 5)
    made.add_at("a", 20)
    assert made.next_due() == 5
    assert made.take(4.9) is None
    assert made.take(5) == "a"
    made.done("a", 5)
    assert made.next_due() is None


def test_failures_wait_longer_and_longer_and_success_forgets_them() -> None:
    made = queue()
    made.add("a", 0)
    waits, now = [], 0.0
    for _ in range(12):
        assert made.take(now) == "a"
        waits.append(made.failed("a", now))
        assert made.take(now) is None
        now += waits[-1]
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == waits[-2] == 90  # the longest, with the jitter of this test
    assert made.take(now) == "a"
    made.done("a", now)
    made.add("a", now)
    assert made.take(now) == "a"
    assert made.failed("a", now) == waits[0]


def test_a_change_during_failing_work_does_not_wait_for_the_back_off() -> None:
    made = queue()
    made.add("a", 0)
    assert made.take(0) == "a"
    made.add("a", 0)
    made.failed("a", 0)
    assert made.take(0) == "a"


def test_the_age_is_that_of_the_oldest_key_that_waits() -> None:
    made = queue()
    assert made.age(9) == 0
    made.add("a", 1)
    made.add("b", 4)
    assert made.age(9) == 8
    made.take(9)
    assert made.age(9) == 5


@given(st.floats(0, 0.999), st.integers(1, 10_000))
def test_a_wait_is_between_half_and_all_of_its_step(random: float, failures: int) -> None:
    wait = Backoff(0.5, 120).seconds(failures, lambda: random)
    step = min(120.0, 0.5 * 2.0 ** min(failures - 1, 30))
    assert step / 2 <= wait < step


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "take", "done", "fail"])))
)
def test_no_key_is_ever_lost_or_worked_on_twice(steps: list[tuple[str, str]]) -> None:
    made, running, wanted, now = queue(), set(), set(), 0.0
    for key, step in steps:
        now += 1
        if step == "add":
            made.add(key, now)
            wanted.add(key)
        elif step == "take":
            taken = made.take(now)
            if taken is not None:
                assert taken not in running
                running.add(taken)
                wanted.discard(taken)
        elif key in running:
            running.discard(key)
            if step == "done":
                made.done(key, now)
            else:
                made.failed(key, now)
                wanted.add(key)
    for key in list(running):
        made.done(key, now)
    left = set()
    while (taken := made.take(now + 1000)) is not None:
        left.add(taken)
    assert wanted <= left
