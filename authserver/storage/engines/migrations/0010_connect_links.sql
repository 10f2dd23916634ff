-- Links by which a user connected an upstream account: each attaches one account.
CREATE TABLE used_connect_links (
    link_hash   BYTEA PRIMARY KEY,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX used_connect_links_by_expiry ON used_connect_links (expires_at);
