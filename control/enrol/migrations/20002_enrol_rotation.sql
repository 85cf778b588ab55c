-- +goose Up
-- The pin of the CA that issued a certificate; '' for the first one.
ALTER TABLE certificates ADD COLUMN issuer TEXT NOT NULL DEFAULT '';

-- When backups were restored, and when they had been made: certificates that
-- were issued in between are not in the table above, and still good.
CREATE TABLE restores (
    made_at     TIMESTAMP NOT NULL,
    restored_at TIMESTAMP NOT NULL
);

-- +goose Down
DROP TABLE restores;
ALTER TABLE certificates DROP COLUMN issuer;
