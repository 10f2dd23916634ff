"""What a token answer says of where an account's APIs are: kept, replaced or dropped."""

import logging
from typing import Any

import pytest

from authserver.storage.records import UpstreamTokens
from authserver.upstream.account_origins import AccountHosts
from authserver.upstream.contract import OutcomeUnknown
from authserver.upstream.http_client import Answer
from authserver.upstream.token_response import TokenRules, read_tokens
from tests.authserver.config.test_base_url_from import HOSTILE

HOSTS = AccountHosts("acme", {"instance_url": ("*.my.salesforce.com",)})
RULES = TokenRules(account_hosts=HOSTS)
NOW = 1_700_000_000
ACME, OTHER = "https://acme.my.salesforce.com", "https://other.my.salesforce.com"
BEFORE = UpstreamTokens("a", "r", "api", NOW, None, origins=(("instance_url", ACME),))


def answer(**members: Any) -> Answer:
    body = {"access_token": "next", "token_type": "Bearer"} | members
    return Answer(200, body)


def read(previous: UpstreamTokens | None = None, **members: Any) -> tuple[tuple[str, str], ...]:
    return read_tokens(answer(**members), RULES, now=NOW, previous=previous).origins


def test_a_first_answer_says_where_the_account_is() -> None:
    assert read(instance_url=f"{ACME}/") == (("instance_url", ACME),)
    assert read() == ()
    assert read(instance_url=None) == ()


def test_a_refresh_that_says_it_again_replaces_and_one_that_does_not_keeps() -> None:
    assert read(BEFORE, instance_url=OTHER) == (("instance_url", OTHER),)
    assert read(BEFORE) == (("instance_url", ACME),)
    assert read(BEFORE, instance_url=None) == (("instance_url", ACME),)


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_a_value_that_is_not_believed_is_as_none_and_drops_the_stored_one(value: Any) -> None:
    assert read(instance_url=value) == ()
    assert read(BEFORE, instance_url=value) == ()


def test_a_member_that_the_configuration_no_longer_names_is_let_go() -> None:
    assert read_tokens(answer(), TokenRules(), now=NOW, previous=BEFORE).origins == ()
    assert read(x_url=ACME, instance_url=ACME) == (("instance_url", ACME),)


def test_a_refresh_whose_token_cannot_be_lent_keeps_where_the_old_one_goes() -> None:
    odd = answer(token_type="dpop", refresh_token="r2", instance_url=OTHER)
    kept = read_tokens(odd, RULES, now=NOW, previous=BEFORE)
    assert (kept.access_token, kept.origins) == ("a", (("instance_url", ACME),))
    with pytest.raises(OutcomeUnknown):
        read_tokens(answer(token_type="dpop"), RULES, now=NOW, previous=BEFORE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("https://canary.example", "host_not_allowed"),
        ("https://u:canary@acme.my.salesforce.com", "not_an_origin"),
        (["canary"], "not_an_origin"),
    ],
)
def test_the_log_says_what_was_wrong_and_never_the_value(
    value: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        read(instance_url=value)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "base_url_refused"
    assert record.__dict__["fields"] == {
        "upstream": "acme",
        "member": "instance_url",
        "reason": reason,
    }
    assert "canary" not in str(record.__dict__)


def test_an_origin_is_in_no_repr() -> None:
    assert "acme.my" not in repr(BEFORE)
