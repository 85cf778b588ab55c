-- +goose Up
ALTER TABLE onboarding ADD COLUMN keep_offboarded_days INTEGER NOT NULL DEFAULT 180;

-- +goose Down
ALTER TABLE onboarding DROP COLUMN keep_offboarded_days;
