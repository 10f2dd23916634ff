-- Tokens that were made of a connection's by an exchange (RFC 8693): of one upstream, for one
-- audience and scope, which `variant` is a hash of. They live on that connection, and go with it.
-- The columns between are those of `connections`.
CREATE TABLE exchanged_tokens (
    user_id               TEXT NOT NULL,
    owner_namespace       TEXT NOT NULL,
    owner_name            TEXT NOT NULL,
    made_of               TEXT NOT NULL,       -- the upstream of that connection
    upstream              TEXT NOT NULL,
    variant               TEXT NOT NULL,
    generation            BIGINT NOT NULL,     -- 0 until there was a token
    upstream_issuer       TEXT NOT NULL,
    upstream_subject      TEXT NOT NULL,
    asked_scope           TEXT NOT NULL,
    asked_audience        TEXT NOT NULL,
    sealed_tokens         BYTEA NOT NULL,
    sealed_under          TEXT NOT NULL,
    dead                  BIGINT NOT NULL DEFAULT 0,
    refresh_claim         TEXT,
    refresh_claimed_at    BIGINT,
    first_claimed_at      BIGINT,
    authorization_server  TEXT,
    registered_client_id  TEXT,
    refused_since         BIGINT,
    refusals              BIGINT NOT NULL DEFAULT 0,
    rejected              BIGINT NOT NULL DEFAULT 0,
    renewed_at            BIGINT NOT NULL,
    PRIMARY KEY (user_id, owner_namespace, owner_name, made_of, upstream, variant),
    FOREIGN KEY (user_id, owner_namespace, owner_name, made_of)
        REFERENCES connections (user_id, owner_namespace, owner_name, upstream) ON DELETE CASCADE
);
CREATE INDEX exchanged_tokens_by_key ON exchanged_tokens (sealed_under);
CREATE INDEX exchanged_tokens_by_age ON exchanged_tokens (renewed_at);
