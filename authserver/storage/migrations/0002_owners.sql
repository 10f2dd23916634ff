-- Who owned which resource when the map of resources last said so: sessions of an owner that it no
-- longer names are orphaned.
CREATE TABLE owners (
    resource         TEXT NOT NULL,
    owner_namespace  TEXT NOT NULL,
    owner_name       TEXT NOT NULL,
    seen_at          BIGINT NOT NULL,
    PRIMARY KEY (resource, owner_namespace, owner_name)
);
