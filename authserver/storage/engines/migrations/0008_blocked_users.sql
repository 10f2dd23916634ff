-- Since when an operator keeps a user out; NULL for everybody else. It survives every sign-in.
ALTER TABLE users ADD COLUMN blocked_at BIGINT;
