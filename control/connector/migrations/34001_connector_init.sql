-- +goose Up
CREATE TABLE connectors (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    kind            TEXT NOT NULL,
    name            TEXT NOT NULL,
    settings        TEXT NOT NULL,
    secret          BLOB,
    version         INTEGER NOT NULL DEFAULT 1,
    created_at      TIMESTAMP NOT NULL,
    updated_at      TIMESTAMP NOT NULL,
    updated_by      TEXT NOT NULL DEFAULT '',
    synced_at       TIMESTAMP,
    error           TEXT
);
CREATE UNIQUE INDEX connectors_name ON connectors (environment_id, name);

-- Keys of hosts, pinned when they were seen first or accepted by somebody, and
-- what a host has offered instead since then.
CREATE TABLE connector_host_keys (
    connector_id TEXT NOT NULL,
    address      TEXT NOT NULL,
    key          TEXT NOT NULL,
    first_seen   TIMESTAMP NOT NULL,
    offered      TEXT NOT NULL DEFAULT '',
    offered_at   TIMESTAMP,
    PRIMARY KEY (connector_id, address)
);

-- +goose Down
DROP TABLE connector_host_keys;
DROP TABLE connectors;
