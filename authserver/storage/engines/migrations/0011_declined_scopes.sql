-- Scopes of upstreams that a session's user was asked for and did not grant, with spaces between.
ALTER TABLE sessions ADD COLUMN declined_scopes TEXT NOT NULL DEFAULT '';
