-- SQL in the subset that SQLite and PostgreSQL share. Times are seconds since the Unix epoch.
-- Columns named *_hash hold SHA-256 of a random secret; columns named sealed_* are ciphertext.
-- sealed_under names the encryption key of the row's ciphertext, to find what must be rewrapped.

CREATE TABLE clients (
    client_id    TEXT PRIMARY KEY,
    metadata     TEXT NOT NULL,
    secret_hash  BYTEA,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT              -- NULL once the client was used: used ones are never pruned
);
CREATE INDEX clients_by_expiry ON clients (expires_at);

CREATE TABLE used_assertions (
    assertion_hash  BYTEA PRIMARY KEY,   -- of client and jti: an assertion counts once
    expires_at      BIGINT NOT NULL
);
CREATE INDEX used_assertions_by_expiry ON used_assertions (expires_at);

CREATE TABLE users (
    user_id          TEXT PRIMARY KEY,
    upstream_issuer  TEXT NOT NULL,
    subject          TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    UNIQUE (upstream_issuer, subject)
);

CREATE TABLE browser_sessions (
    handle_hash   BYTEA PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES users (user_id),
    signed_in_at  BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX browser_sessions_by_expiry ON browser_sessions (expires_at);

CREATE TABLE consents (
    consent_hash  BYTEA PRIMARY KEY,    -- of the user and everything the consent page said
    user_id       TEXT NOT NULL REFERENCES users (user_id),
    client_id     TEXT NOT NULL,
    resource      TEXT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX consents_by_user ON consents (user_id, client_id);
CREATE INDEX consents_by_expiry ON consents (expires_at);

CREATE TABLE transactions (
    handle_hash         BYTEA PRIMARY KEY,
    stage               TEXT NOT NULL,
    browser_hash        BYTEA NOT NULL,
    upstream            TEXT NOT NULL,
    sealed_transaction  BYTEA NOT NULL,
    sealed_under        TEXT NOT NULL,
    expires_at          BIGINT NOT NULL
);
CREATE INDEX transactions_by_key ON transactions (sealed_under);
CREATE INDEX transactions_by_expiry ON transactions (expires_at);

CREATE TABLE sessions (
    tsid             TEXT PRIMARY KEY,
    user_id          TEXT NOT NULL REFERENCES users (user_id),
    client_id        TEXT NOT NULL,
    resource         TEXT NOT NULL,
    owner_namespace  TEXT NOT NULL,
    owner_name       TEXT NOT NULL,
    scope            TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    signed_in_at     BIGINT NOT NULL,
    ended_at         BIGINT
);
CREATE INDEX sessions_by_holder ON sessions (user_id, owner_namespace, owner_name);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE codes (
    code_hash       BYTEA PRIMARY KEY,
    tsid            TEXT NOT NULL REFERENCES sessions (tsid) ON DELETE CASCADE,
    client_id       TEXT NOT NULL,
    redirect_uri    TEXT NOT NULL,
    code_challenge  TEXT NOT NULL,
    resource        TEXT NOT NULL,
    nonce           TEXT,
    redeemed_at     BIGINT,
    expires_at      BIGINT NOT NULL
);
CREATE INDEX codes_by_expiry ON codes (expires_at);
CREATE INDEX codes_by_session ON codes (tsid);

CREATE TABLE refresh_tokens (
    token_hash        BYTEA PRIMARY KEY,
    tsid              TEXT NOT NULL REFERENCES sessions (tsid) ON DELETE CASCADE,
    used_at           BIGINT,
    successor_hash    BYTEA,
    sealed_successor  BYTEA,        -- kept for the grace in which its predecessor gets it again
    sealed_under      TEXT,
    expires_at        BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_by_key ON refresh_tokens (sealed_under);
CREATE INDEX refresh_tokens_by_successor ON refresh_tokens (successor_hash);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (tsid);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

CREATE TABLE connections (
    user_id             TEXT NOT NULL REFERENCES users (user_id),
    owner_namespace     TEXT NOT NULL,
    owner_name          TEXT NOT NULL,
    upstream            TEXT NOT NULL,
    generation          BIGINT NOT NULL,
    upstream_issuer     TEXT NOT NULL,
    upstream_subject    TEXT NOT NULL,
    asked_scope         TEXT NOT NULL,
    sealed_tokens       BYTEA NOT NULL,
    sealed_under        TEXT NOT NULL,
    dead                BIGINT NOT NULL DEFAULT 0,
    refresh_claim       TEXT,            -- who may present this generation's refresh token
    refresh_claimed_at  BIGINT,
    first_claimed_at    BIGINT,          -- from when on it may have been presented
    PRIMARY KEY (user_id, owner_namespace, owner_name, upstream)
);
CREATE INDEX connections_by_key ON connections (sealed_under);

-- What one replica does for all: whoever holds the lease.
CREATE TABLE leases (
    name        TEXT PRIMARY KEY,
    holder      TEXT NOT NULL,
    expires_at  BIGINT NOT NULL
);

-- Recognises a key under whose id another one was put.
CREATE TABLE key_checks (
    key_id       TEXT PRIMARY KEY,
    fingerprint  BYTEA NOT NULL
);
