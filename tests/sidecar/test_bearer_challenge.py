"""How servers say that a token lacks a scope (RFC 6750 section 3), as they really write it."""

import pytest

from sidecar.bearer_challenge import challenge_parameters, challenged_scope


@pytest.mark.parametrize(
    ("values", "scope"),
    [
        (['Bearer realm="api", error="insufficient_scope", scope="repo"'], "repo"),
        (['bearer scope="a b",error="insufficient_scope"'], "a b"),
        # google/google-api-ruby-client-samples issue 18: without quotes around the error.
        (
            [
                'Bearer realm="https://accounts.google.com/AuthSubRequest", '
                'error=insufficient_scope, scope="https://www.googleapis.com/auth/analytics"'
            ],
            "https://www.googleapis.com/auth/analytics",
        ),
        (['Basic realm="x", Bearer error="insufficient_scope", scope="a"'], "a"),
        (['Basic realm="x"', 'Bearer error="insufficient_scope", scope="a"'], "a"),
        (['Bearer error="insufficient_scope", error_description="a, b=\\"c\\"", scope="a"'], "a"),
        (['Bearer error="invalid_token", scope="repo"'], None),
        (['Bearer error="insufficient_scope"'], None),
        (['Bearer error="insufficient_scope", scope=""'], None),
        (['Bearer error="insufficient_scope", scope="a  b"'], None),
        (['Bearer error="insufficient_scope", scope="a\\"b"'], None),
        (['Basic error="insufficient_scope", scope="a"'], None),
        (['DPoP error="insufficient_scope", scope="a"'], None),
        (['Bearer realm="bearer error=insufficient_scope, scope=a"'], None),
        (["Bearer"], None),
        ([""], None),
        ([], None),
        ([f'Bearer error="insufficient_scope", x="{"a" * 8192}", scope="a"'], None),
    ],
)
def test_only_a_bearer_challenge_for_a_scope_names_one(
    values: list[str], scope: str | None
) -> None:
    assert challenged_scope(values) == scope


def test_the_first_of_equal_parameters_counts() -> None:
    assert challenge_parameters(['Bearer scope="a", SCOPE="b"']) == {"scope": "a"}
