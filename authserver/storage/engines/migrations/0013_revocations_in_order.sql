-- A mass of endings is read page by page, in this order.
CREATE INDEX revocations_in_order ON revocations (expires_at, revocation_id);
DROP INDEX revocations_by_expiry;
