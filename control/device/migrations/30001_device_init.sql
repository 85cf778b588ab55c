-- +goose Up
CREATE TABLE devices (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    name            TEXT NOT NULL,
    facts           TEXT NOT NULL,
    first_seen      TIMESTAMP NOT NULL,
    last_seen       TIMESTAMP NOT NULL,
    offboarded_at   TIMESTAMP,
    health          TEXT,
    health_at       TIMESTAMP,
    policy_confirmed    INTEGER NOT NULL DEFAULT 0,
    policy_confirmed_at TIMESTAMP,
    policy_error        TEXT NOT NULL DEFAULT ''
);
CREATE INDEX devices_environment ON devices (environment_id, name);
CREATE INDEX devices_name ON devices (name);

-- +goose Down
DROP TABLE devices;
