"""PKCE as RFC 7636 has it."""

from authserver.oauth.pkce import challenge_of, matches


def test_the_example_of_the_rfc() -> None:
    """Appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert matches(verifier, challenge_of(verifier))
    assert not matches(verifier, challenge_of(verifier[:-1] + "l"))
