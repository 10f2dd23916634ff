-- Tokens of deleted connections, until their upstream has revoked them. A row is written in the
-- transaction that deletes the connection. `attempts` counts who set out to revoke them, and names
-- the last one; until `next_at` nobody else may.
CREATE TABLE upstream_revocations (
    revocation_id         TEXT PRIMARY KEY,
    user_id               TEXT NOT NULL,
    owner_namespace       TEXT NOT NULL,
    owner_name            TEXT NOT NULL,
    upstream              TEXT NOT NULL,
    made_of               TEXT NOT NULL,       -- of exchanged tokens: the upstream they were made of
    upstream_issuer       TEXT NOT NULL,
    upstream_subject      TEXT NOT NULL,
    authorization_server  TEXT,
    registered_client_id  TEXT,
    sealed_tokens         BYTEA NOT NULL,
    sealed_under          TEXT NOT NULL,
    attempts              BIGINT NOT NULL,
    queued_at             BIGINT NOT NULL,
    next_at               BIGINT NOT NULL
);
CREATE INDEX upstream_revocations_in_order ON upstream_revocations (upstream, next_at);
CREATE INDEX upstream_revocations_by_key ON upstream_revocations (sealed_under);
