-- How many sidecars of each owner follow the revocation feed at each replica, a moment ago.
CREATE TABLE feed_followers (
    replica     TEXT PRIMARY KEY,
    followers   TEXT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX feed_followers_by_expiry ON feed_followers (expires_at);
