-- A listing of one client's sessions reads them page by page, in the order of their ids.
DROP INDEX sessions_by_client;
CREATE INDEX sessions_by_client ON sessions (client_id, tsid);
