-- Registrations of stored connections that the configuration does not name, and since when. A
-- connection that was stored before registrations were counts under its issuer, with no client id.
CREATE TABLE absent_registrations (
    upstream              TEXT NOT NULL,
    authorization_server  TEXT NOT NULL,
    client_id             TEXT NOT NULL,
    absent_since          BIGINT NOT NULL,
    PRIMARY KEY (upstream, authorization_server, client_id)
);
CREATE INDEX connections_of_registration
    ON connections (upstream, authorization_server, registered_client_id);
CREATE INDEX connections_without_registration ON connections (upstream, upstream_issuer)
    WHERE authorization_server IS NULL;

-- The hour of an upstream that was missing at the upgrade begins anew.
DROP TABLE missing_upstreams;
