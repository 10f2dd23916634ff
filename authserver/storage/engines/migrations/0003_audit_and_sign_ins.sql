-- The key of the audit trail's pseudonyms; it outlives every encryption key.
CREATE TABLE audit_keys (
    name          TEXT PRIMARY KEY,
    sealed_key    BYTEA NOT NULL,
    sealed_under  TEXT NOT NULL
);
CREATE INDEX audit_keys_by_key ON audit_keys (sealed_under);

-- When a release in this session was refused because only a sign-in helps; NULL after one.
ALTER TABLE sessions ADD COLUMN sign_in_required_at BIGINT;

-- Upstreams of stored connections that the configuration does not name, and since when.
CREATE TABLE missing_upstreams (
    upstream       TEXT PRIMARY KEY,
    missing_since  BIGINT NOT NULL
);
