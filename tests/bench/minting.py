"""JWTs of a signed-in user that nobody has seen: the same session, another `jti`."""

import secrets
from pathlib import Path

from tests.support.forged_tokens import changed, claims_of, header_of, private_key, signed


class Minter:
    """Signs with the authserver's own key, as a token endpoint would for every refresh."""

    def __init__(self, jwt: str, signing_key: Path) -> None:
        self._header, self._claims = changed(header_of(jwt), {}), claims_of(jwt)
        self._key = private_key(signing_key)

    def __call__(self, **changes: object) -> str:
        jti = {"jti": secrets.token_urlsafe(16)}
        return signed(self._header, changed(self._claims, jti | changes), self._key)
