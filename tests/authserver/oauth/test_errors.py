"""What a refusal says as JSON (RFC 6749 section 5.2)."""

import pytest

from authserver.oauth.errors import InvalidGrant, StepUpRequired


def test_a_refusal_has_its_code_and_its_description() -> None:
    assert InvalidGrant("reason").members() == {"error": "invalid_grant"}
    refusal = InvalidGrant("reason", "the code has expired")
    assert refusal.members() == {
        "error": "invalid_grant",
        "error_description": "the code has expired",
    }
    assert "reason" not in refusal.members().values()


def test_members_of_its_own_come_with_it() -> None:
    refusal = StepUpRequired("reason", "repo")
    assert refusal.members() == {"error": "insufficient_scope", "scope": "repo"}


@pytest.mark.parametrize("description", ['say "no"', "a\\b", "line\nbreak", "café"])
def test_a_description_has_the_characters_of_the_rfc_only(description: str) -> None:
    with pytest.raises(ValueError, match="RFC 6749"):
        InvalidGrant("reason", description)
