-- The registration of ours that gave a connection its tokens; NULL in rows stored before. Then, for
-- one generation: definite refusals of its refresh token, and an access token that is refused.
ALTER TABLE connections ADD COLUMN authorization_server TEXT;
ALTER TABLE connections ADD COLUMN registered_client_id TEXT;
ALTER TABLE connections ADD COLUMN refused_since BIGINT;
ALTER TABLE connections ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0;
ALTER TABLE connections ADD COLUMN rejected BIGINT NOT NULL DEFAULT 0;
