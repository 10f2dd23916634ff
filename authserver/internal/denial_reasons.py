"""Every reason for which the internal listener refuses, as one closed list.

A reason stands in the audit event and labels `tokenward_authserver_denials_total`; no caller
learns it. docs/reference/denials.md says what each one means and what to do.
"""

from enum import StrEnum
from typing import Final

from authserver.tokens.jws import BadToken


class DenialReason(StrEnum):
    """The members follow the order of the checks."""

    # The certificate.
    NO_CLIENT_CERTIFICATE = "no_client_certificate"
    CERTIFICATE_UNREADABLE = "certificate_unreadable"
    CERTIFICATE_OF_A_CA = "certificate_of_a_ca"
    KEY_USAGE_MISSING = "key_usage_missing"
    KEY_USAGE = "key_usage"
    CERTIFICATE_MAY_SIGN_CERTIFICATES = "certificate_may_sign_certificates"
    NOT_FOR_CLIENT_AUTHENTICATION = "not_for_client_authentication"
    WEAK_KEY = "weak_key"
    CERTIFICATE_LIVES_TOO_LONG = "certificate_lives_too_long"
    NO_SPIFFE_ID = "no_spiffe_id"
    NOT_EXACTLY_ONE_URI = "not_exactly_one_uri"
    NOT_A_WORKLOAD_OF_THIS_TRUST_DOMAIN = "not_a_workload_of_this_trust_domain"
    CERTIFICATE_NOT_VALID_NOW = "certificate_not_valid_now"
    CERTIFICATE_NAMES_THE_AUTHSERVER = "certificate_names_the_authserver"
    CERTIFICATE_DENIED = "certificate_denied"
    WORKLOAD_NOT_ALLOWED = "workload_not_allowed"

    # The form of the request.
    NOT_AN_HTTP_1_1_POST = "not_an_http_1_1_post"
    QUERY_STRING = "query_string"
    MEDIA_TYPE = "media_type"
    BODY_TOO_LARGE = "body_too_large"
    SLOW_BODY = "slow_body"
    BODY_CUT_OFF = "body_cut_off"
    MALFORMED_FORM = "malformed_form"
    NO_GRANT_TYPE = "no_grant_type"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNKNOWN_PARAMETER = "unknown_parameter"
    NO_SUBJECT_TOKEN = "no_subject_token"  # noqa: S105 - a reason
    SUBJECT_TOKEN_TYPE = "subject_token_type"  # noqa: S105 - a reason
    REQUESTED_TOKEN_TYPE = "requested_token_type"  # noqa: S105 - a reason
    REJECTED_TOKEN_SHA256 = "rejected_token_sha256"  # noqa: S105 - a reason
    MIN_TTL = "min_ttl"
    MISSING_SCOPE = "missing_scope"
    TARGET_AUDIENCE = "target_audience"
    SCOPE = "scope"

    # The JWT.
    JWT_NOT_A_COMPACT_JWS = "jwt_not_a_compact_jws"
    JWT_FORBIDDEN_HEADER = "jwt_forbidden_header"
    JWT_WRONG_TYP = "jwt_wrong_typ"
    JWT_UNKNOWN_KID = "jwt_unknown_kid"
    JWT_WRONG_ALGORITHM = "jwt_wrong_algorithm"
    JWT_PAYLOAD_NOT_JSON = "jwt_payload_not_json"
    JWT_BAD_SIGNATURE = "jwt_bad_signature"
    JWT_WRONG_ISSUER = "jwt_wrong_issuer"
    JWT_BAD_CLAIMS = "jwt_bad_claims"
    JWT_EXPIRED = "jwt_expired"
    JWT_NOT_YET_VALID = "jwt_not_yet_valid"
    JWT_LIFETIME_TOO_LONG = "jwt_lifetime_too_long"
    JWT_KEY_DID_NOT_SIGN_THEN = "jwt_key_did_not_sign_then"
    UNKNOWN_RESOURCE = "unknown_resource"
    CALLER_IS_NOT_THE_OWNER = "caller_is_not_the_owner"
    CERTIFICATE_OF_A_NAMESAKE = "certificate_of_a_namesake"
    NO_SUCH_SESSION = "no_such_session_of_this_token"

    # The limits.
    VERIFICATIONS = "verifications"
    FAILED_TOKENS = "failed_tokens"
    RELEASES = "releases"
    REJECTED_TOKENS = "rejected_tokens"

    # The upstream and the connection.
    UPSTREAM_NOT_NAMED = "upstream_not_named"
    UPSTREAM_NOT_PERMITTED = "upstream_not_permitted"
    MISSING_SCOPE_NOT_PERMITTED = "missing_scope_not_permitted"
    TARGET_AUDIENCE_NOT_PERMITTED = "target_audience_not_permitted"
    SCOPE_NOT_PERMITTED = "scope_not_permitted"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    REQUIRED_SCOPE_MISSING = "required_scope_missing"
    SCOPE_DECLINED = "scope_declined"
    USER_BLOCKED = "user_blocked"
    NO_CONNECTION = "no_connection"
    CONNECTION_GONE = "connection_gone"
    CONNECTION_NEEDS_SIGN_IN = "connection_needs_sign_in"
    CONNECTION_REJECTED = "connection_rejected"
    REFRESH_TOKEN_DOES_NOT_WORK = "refresh_token_does_not_work"  # noqa: S105 - a reason
    UPSTREAM_REGISTRATION_CHANGED = "upstream_registration_changed"
    UPSTREAM_ENDED_THE_GRANT = "upstream_ended_the_grant"
    SUBJECT_CHANGED = "subject_changed"
    CLAIM_LEFT_BEHIND = "claim_left_behind"
    REFRESH_OUTCOME_UNKNOWN = "refresh_outcome_unknown"

    # What keeps us from answering.
    UPSTREAM_REFRESH_FAILED = "upstream_refresh_failed"
    UPSTREAM_EXCHANGE_FAILED = "upstream_exchange_failed"
    UPSTREAM_TOKEN_ALREADY_OVER = "upstream_token_already_over"  # noqa: S105 - a reason
    STORAGE_UNAVAILABLE = "storage_down"
    DECRYPTION_FAILED = "seal_broken"
    AUDIT_LOST = "audit_lost"
    UNEXPECTED = "unexpected"


_OF_JWTS: Final = {
    reason.removeprefix("jwt_"): reason for reason in DenialReason if reason.startswith("jwt_")
}


def of_bad_token(refused: BadToken) -> DenialReason:
    """The reason for which a JWT was not accepted."""
    return _OF_JWTS.get(str(refused), DenialReason.JWT_BAD_CLAIMS)
