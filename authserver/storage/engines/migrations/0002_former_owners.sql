-- Owners that sessions were made for and that the map of resources does not name, and since when.
CREATE TABLE former_owners (
    resource         TEXT NOT NULL,
    owner_namespace  TEXT NOT NULL,
    owner_name       TEXT NOT NULL,
    missing_since    BIGINT NOT NULL,
    PRIMARY KEY (resource, owner_namespace, owner_name)
);

CREATE INDEX sessions_of_owner ON sessions (resource, owner_namespace, owner_name)
    WHERE ended_at IS NULL;
