-- +goose Up
CREATE TABLE machines (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    name            TEXT NOT NULL,
    address         TEXT NOT NULL DEFAULT '',
    login           TEXT NOT NULL DEFAULT '',
    source          TEXT NOT NULL,
    connector_id    TEXT NOT NULL DEFAULT '',
    external_id     TEXT NOT NULL DEFAULT '',
    system          TEXT NOT NULL DEFAULT '',
    os              TEXT NOT NULL DEFAULT '',
    arch            TEXT NOT NULL DEFAULT '',
    tags            TEXT NOT NULL DEFAULT '[]',
    own_tags        TEXT NOT NULL DEFAULT '[]',
    plan            TEXT NOT NULL DEFAULT '',
    device_id       TEXT NOT NULL DEFAULT '',
    first_seen      TIMESTAMP NOT NULL,
    last_seen       TIMESTAMP NOT NULL,
    stopped         BOOLEAN NOT NULL DEFAULT FALSE,
    gone            BOOLEAN NOT NULL DEFAULT FALSE,
    offboarded      BOOLEAN NOT NULL DEFAULT FALSE,
    extension       TEXT NOT NULL DEFAULT '{}',
    version         INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX machines_environment ON machines (environment_id, name);
CREATE INDEX machines_connector ON machines (connector_id, external_id);

-- What happened on the way to protection, the newest of each machine.
CREATE TABLE machine_journal (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id TEXT NOT NULL,
    at         TIMESTAMP NOT NULL,
    step       TEXT NOT NULL,
    state      TEXT NOT NULL,
    text       TEXT NOT NULL DEFAULT '',
    reason     TEXT
);
CREATE INDEX machine_journal_machine ON machine_journal (machine_id, id);

-- How many machines were protected, a row for each quarter of an hour in which
-- that was looked at.
CREATE TABLE machine_coverage (
    environment_id TEXT NOT NULL,
    at             TIMESTAMP NOT NULL,
    machines       INTEGER NOT NULL,
    protected      INTEGER NOT NULL,
    failed         INTEGER NOT NULL,
    not_applicable INTEGER NOT NULL,
    PRIMARY KEY (environment_id, at)
);

-- +goose Down
DROP TABLE machine_coverage;
DROP TABLE machine_journal;
DROP TABLE machines;
