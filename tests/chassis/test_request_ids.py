"""Which names of a request are taken over from its caller, and those that are made."""

import pytest

from chassis.request_ids import caller_request_id, new_request_id, traceparent_line

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_well_formed_traceparent_names_the_request_and_is_sent_on() -> None:
    assert caller_request_id({"traceparent": GOOD}) == TRACE
    assert traceparent_line({"traceparent": GOOD}) == f"traceparent: {GOOD}\r\n".encode()


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        GOOD.upper(),
        f"{GOOD}-more",
        f" {GOOD}",
        f"{GOOD}\n",
        f"00-{TRACE[1:]}-{SPAN}-01",
    ],
)
def test_another_traceparent_is_not_repeated(malformed: str) -> None:
    assert caller_request_id({"traceparent": malformed}) == ""
    assert traceparent_line({"traceparent": malformed}) == b""


def test_an_id_of_its_own_comes_first_unless_it_cannot_be_repeated() -> None:
    assert caller_request_id({"x-request-id": "abcdefgh", "traceparent": GOOD}) == "abcdefgh"
    for given in ("short", "x" * 65, "with blank", "line\nbreak", "ümlaut-id", "abcdefgh\n"):
        assert caller_request_id({"x-request-id": given, "traceparent": GOOD}) == TRACE
        assert caller_request_id({"x-request-id": given}) == ""


def test_no_id_that_we_make_comes_twice() -> None:
    made = [new_request_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert {len(each) for each in made} == {16}
    assert all(caller_request_id({"x-request-id": each}) == each for each in made)
