-- What an operator's command did, until a running authserver has written it to its audit trail.
CREATE TABLE operator_events (
    event_id    TEXT PRIMARY KEY,
    fields      TEXT NOT NULL,
    written_at  BIGINT NOT NULL
);
