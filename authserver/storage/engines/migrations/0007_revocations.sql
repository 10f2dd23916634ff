-- Sessions and connections that ended, for the feed that sidecars follow. A row is written in the
-- transaction that ends them, and kept for ten minutes. It has a tsid, or a user and an upstream.
CREATE TABLE revocations (
    revocation_id    TEXT PRIMARY KEY,
    owner_namespace  TEXT NOT NULL,
    owner_name       TEXT NOT NULL,
    tsid             TEXT,
    user_id          TEXT,
    upstream         TEXT,
    ended_at         BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL
);
CREATE INDEX revocations_of_owner ON revocations (owner_namespace, owner_name, ended_at);
CREATE INDEX revocations_by_expiry ON revocations (expires_at);

-- Tells this database from the one that stood here before it.
CREATE TABLE database_identity (
    name         TEXT PRIMARY KEY,
    database_id  TEXT NOT NULL
);
