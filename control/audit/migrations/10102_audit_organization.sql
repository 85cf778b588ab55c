-- +goose Up
-- Entries from before, and those of the host, name none: they belong to the
-- organization that was there first.
ALTER TABLE audit_log ADD COLUMN organization_id TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE audit_log DROP COLUMN organization_id;
