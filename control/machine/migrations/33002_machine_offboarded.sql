-- +goose Up
-- When a machine was offboarded, and whether its own host did it. Of those that
-- were offboarded before this was noted, the upgrade counts as the time.
ALTER TABLE machines ADD COLUMN offboarded_at TIMESTAMP;
ALTER TABLE machines ADD COLUMN "left" BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE machines SET offboarded_at = strftime('%Y-%m-%d %H:%M:%f', 'now') || '+00:00' WHERE offboarded;

-- +goose Down
ALTER TABLE machines DROP COLUMN "left";
ALTER TABLE machines DROP COLUMN offboarded_at;
