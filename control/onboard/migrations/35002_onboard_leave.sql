-- +goose Up
ALTER TABLE onboarding ADD COLUMN allow_host_offboarding BOOLEAN NOT NULL DEFAULT TRUE;

-- +goose Down
ALTER TABLE onboarding DROP COLUMN allow_host_offboarding;
