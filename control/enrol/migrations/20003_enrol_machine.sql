-- +goose Up
-- The machine that a token was made for; '' for one that people use.
ALTER TABLE join_tokens ADD COLUMN machine_id TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE join_tokens DROP COLUMN machine_id;
