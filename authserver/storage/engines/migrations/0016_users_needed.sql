-- From when on only the user can bring another token of a connection (Unix seconds); NULL where
-- the upstream did not say.
ALTER TABLE connections ADD COLUMN needs_user_at BIGINT;
CREATE INDEX connections_by_need ON connections (needs_user_at) WHERE needs_user_at IS NOT NULL;
CREATE INDEX connections_dead ON connections (user_id) WHERE dead = 1;
