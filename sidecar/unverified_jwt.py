"""What a JWT says of itself, read only to refuse what cannot be good for this workload.

Nothing here is believed: a JWT that passes is verified by the authserver. What is refused here
costs no exchange, so that a stranger's JWTs take nothing from the users of the MCP server.
"""

import binascii
import json
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

# The clocks of a node and of the authserver may differ; a JWT that ended in between is not ours
# to judge.
_EXPIRED_SECONDS: Final = 60
OTHER_ISSUER: Final = "jwt_of_another_issuer"
OTHER_RESOURCE: Final = "jwt_for_another_resource"
EXPIRED: Final = "jwt_expired"
PROBLEMS: Final = (OTHER_ISSUER, OTHER_RESOURCE, EXPIRED)

_PORTS: Final = {"http": 80, "https": 443}


class ExpectedClaims(NamedTuple):
    """What a JWT for this workload says; None where it is not configured."""

    issuer: str | None
    resource: str | None

    def problem_of(self, unverified_jwt: str, times: Sequence[float]) -> str | None:
        """Why the authserver would refuse this JWT for certain, as a reason code; else None.

        `times` is what each credible clock says, in Unix time. A payload that cannot be read is
        left to the authserver.
        """
        claims = _claims(unverified_jwt)
        issuer, audience = claims.get("iss"), claims.get("aud")
        expires_at: Any = claims.get("exp")
        if self.issuer is not None and isinstance(issuer, str) and issuer != self.issuer:
            return OTHER_ISSUER
        # The operator of the authserver may spell the resource in another way than the pod.
        if (
            self.resource is not None
            and isinstance(audience, str)
            and _folded(audience) != _folded(self.resource)
        ):
            return OTHER_RESOURCE
        ends = isinstance(expires_at, int | float) and not isinstance(expires_at, bool)
        if ends and times and min(times) - float(expires_at) > _EXPIRED_SECONDS:
            return EXPIRED
        return None


def expiry_of(accepted_jwt: str) -> float | None:
    """When a JWT that the authserver accepted ends, in Unix time; None where it does not say."""
    ends: Any = _claims(accepted_jwt).get("exp")
    if isinstance(ends, int | float) and not isinstance(ends, bool):
        return float(ends)
    return None


def _claims(unverified_jwt: str) -> dict[str, Any]:
    try:
        payload = unverified_jwt.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _folded(url: str) -> str:
    """One spelling of equal resources, as the authserver folds them (RFC 8707 section 2)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    scheme, path = parts.scheme.lower(), parts.path.removesuffix("/")
    authority = (parts.hostname or "") + ("" if port in (None, _PORTS.get(scheme)) else f":{port}")
    return f"{scheme}://{authority}{path}?{parts.query}"
