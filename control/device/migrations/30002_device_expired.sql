-- +goose Up
-- When nothing was kept of an offboarded device but its name, under which
-- alerts and the audit log speak of it.
ALTER TABLE devices ADD COLUMN expired_at TIMESTAMP;

-- +goose Down
ALTER TABLE devices DROP COLUMN expired_at;
