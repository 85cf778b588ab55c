-- +goose Up
CREATE TABLE policies (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name            TEXT NOT NULL,
    description     TEXT NOT NULL,
    type            TEXT NOT NULL,
    settings        TEXT NOT NULL, -- policy.Settings as JSON
    priority        INTEGER NOT NULL,
    assignments     TEXT NOT NULL, -- JSON list of kind and id
    version         INTEGER NOT NULL,
    updated_at      TIMESTAMP NOT NULL,
    updated_by      TEXT NOT NULL
);
CREATE UNIQUE INDEX policies_name ON policies (organization_id, name);

CREATE TABLE device_groups (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name            TEXT NOT NULL,
    rank            INTEGER NOT NULL,
    match           TEXT NOT NULL, -- JSON: what its devices have in common
    version         INTEGER NOT NULL,
    updated_at      TIMESTAMP NOT NULL,
    updated_by      TEXT NOT NULL
);
CREATE UNIQUE INDEX device_groups_name ON device_groups (organization_id, name);

-- The policy document of each device: its version rises with its content.
CREATE TABLE policy_documents (
    device_id         TEXT PRIMARY KEY,
    version           INTEGER NOT NULL,
    digest            TEXT NOT NULL, -- of the content
    composed_at       TIMESTAMP NOT NULL,
    settings          TEXT NOT NULL, -- JSON: digest of the value by setting
    confirmed_version INTEGER NOT NULL DEFAULT 0,
    confirmed_at      TIMESTAMP,
    confirmed         TEXT NOT NULL DEFAULT '{}', -- JSON: what the agent confirms, since when, by setting
    failed_version    INTEGER NOT NULL DEFAULT 0,
    error             TEXT NOT NULL DEFAULT ''
);

-- +goose Down
DROP TABLE policy_documents;
DROP TABLE device_groups;
DROP TABLE policies;
