-- Which object of the owner's name a session and a connection belong to: the UID of an
-- MCPServerAuth, empty where the map names none. What another object of the name left is not used.
ALTER TABLE sessions ADD COLUMN owner_uid TEXT NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN owner_uid TEXT NOT NULL DEFAULT '';
