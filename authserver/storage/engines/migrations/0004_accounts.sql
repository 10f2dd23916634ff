-- How a user's account is called, for our pages; sealed like everything of a person.
ALTER TABLE users ADD COLUMN sealed_account BYTEA;
ALTER TABLE users ADD COLUMN sealed_under TEXT;
CREATE INDEX users_by_key ON users (sealed_under);

-- The upstreams that a session's authorization named, and those of them that its sign-in went on
-- without; names with spaces between. NULL in sessions of before: their connections say it.
ALTER TABLE sessions ADD COLUMN upstreams TEXT;
ALTER TABLE sessions ADD COLUMN when_needed TEXT NOT NULL DEFAULT '';

-- Whether anybody here has used a client.
CREATE INDEX sessions_by_client ON sessions (client_id);
