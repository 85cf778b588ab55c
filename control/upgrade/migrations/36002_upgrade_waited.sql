-- +goose Up
ALTER TABLE upgrade_jobs ADD COLUMN waited BOOLEAN NOT NULL DEFAULT FALSE; -- it could not begin before, for a reason that says nothing about the version
ALTER TABLE upgrade_jobs ADD COLUMN lost INTEGER NOT NULL DEFAULT 0; -- how often it had the version and has an older one again

-- +goose Down
ALTER TABLE upgrade_jobs DROP COLUMN lost;
ALTER TABLE upgrade_jobs DROP COLUMN waited;
