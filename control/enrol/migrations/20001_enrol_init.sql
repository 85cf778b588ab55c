-- +goose Up
CREATE TABLE join_tokens (
    id             TEXT PRIMARY KEY,
    environment_id TEXT NOT NULL,
    hash           BLOB NOT NULL UNIQUE,
    label          TEXT NOT NULL,
    created_by     TEXT NOT NULL,
    created_at     TIMESTAMP NOT NULL,
    expires_at     TIMESTAMP NOT NULL,
    max_uses       INTEGER NOT NULL,
    uses           INTEGER NOT NULL DEFAULT 0,
    revoked        BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX join_tokens_environment ON join_tokens (environment_id, created_at DESC);
CREATE TABLE certificates (
    serial     TEXT PRIMARY KEY,
    device_id  TEXT NOT NULL,
    issued_at  TIMESTAMP NOT NULL,
    not_after  TIMESTAMP NOT NULL,
    revoked_at TIMESTAMP
);
CREATE INDEX certificates_device ON certificates (device_id, issued_at DESC);

-- +goose Down
DROP TABLE certificates;
DROP TABLE join_tokens;
