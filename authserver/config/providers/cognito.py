"""Amazon Cognito user pools: an issuer at one host and endpoints at another."""

from typing import Final

from authserver.config.providers.shape import OPENID_SCOPES, Provider, Refresh, Source

_READ_ON: Final = "2026-11-29"
_GUIDE: Final = "https://docs.aws.amazon.com/cognito/latest/developerguide"
_REFERENCE: Final = "https://docs.aws.amazon.com/cognito-user-identity-pools/latest/APIReference"
_SCOPES: Final = {
    "openid": OPENID_SCOPES["openid"],
    "profile": OPENID_SCOPES["profile"],
    "email": OPENID_SCOPES["email"],
    "phone": "See your phone number",
    "aws.cognito.signin.user.admin": "See and change your own account",
}

COGNITO: Final = Provider(
    settings={
        "displayName": "Amazon Cognito",
        "scopeDescriptions": _SCOPES,
        "type": "oidc",
        "scopes": ["openid"],
    },
    refresh=Refresh(
        rotation="a setting",
        spends=True,
        access_lasts="a setting of the app client",
        refresh_lasts="a setting of the app client",
    ),
    sources=(
        Source(f"{_GUIDE}/revocation-endpoint.html", _READ_ON),
        Source(f"{_GUIDE}/userinfo-endpoint.html", _READ_ON),
        Source(f"{_REFERENCE}/API_RefreshTokenRotationType.html", _READ_ON),
        Source(f"{_REFERENCE}/API_RevokeToken.html", _READ_ON),
    ),
    subject="`sub` of the ID token",
    issuer_form="https://cognito-idp.REGION.amazonaws.com/POOL-ID",
    notes=(
        "A refresh without rotation answers with no refresh token: the old one goes on.",
        "With rotation, write the app client's retry grace period (0 to 60 seconds) as"
        " `refreshTokenReuseGrace`.",
        "A revoked refresh token ends its access tokens at Cognito; who only checks their"
        " signature takes them until they end.",
    ),
)
