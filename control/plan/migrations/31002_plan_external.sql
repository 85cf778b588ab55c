-- +goose Up
-- The subscription, account or project that an environment stands for.
ALTER TABLE environments ADD COLUMN external_id TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE environments DROP COLUMN external_id;
