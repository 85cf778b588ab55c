-- +goose Up
CREATE TABLE upgrade_settings (
    organization_id TEXT PRIMARY KEY,
    automatic       BOOLEAN NOT NULL,
    target          TEXT NOT NULL, -- a version, or newest
    rings           TEXT NOT NULL, -- JSON
    version         INTEGER NOT NULL,
    updated_at      TIMESTAMP NOT NULL,
    updated_by      TEXT NOT NULL
);

CREATE TABLE upgrade_rollouts (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    version         TEXT NOT NULL,
    origin          TEXT NOT NULL, -- the rollout that this one takes back, '' for an upgrade
    base            TEXT NOT NULL, -- the version that most devices had before
    state           TEXT NOT NULL,
    ring            INTEGER NOT NULL,
    quiet_since     TIMESTAMP, -- since when nothing is left to do in the ring
    halted          TEXT, -- deploy.Reason as JSON; NULL when a person halted it
    started_at      TIMESTAMP NOT NULL,
    ended_at        TIMESTAMP
);
CREATE INDEX upgrade_rollouts_organization ON upgrade_rollouts (organization_id, started_at);

CREATE TABLE upgrade_jobs (
    rollout_id   TEXT NOT NULL,
    device_id    TEXT NOT NULL,
    id           TEXT NOT NULL, -- as the device knows it
    ring         TEXT NOT NULL,
    state        TEXT NOT NULL,
    from_version TEXT NOT NULL,
    to_version   TEXT NOT NULL,
    was_healthy  BOOLEAN NOT NULL,
    forgiven     BOOLEAN NOT NULL, -- somebody resumed the rollout in spite of it
    reason       TEXT, -- deploy.Reason as JSON
    gap          INTEGER NOT NULL, -- nanoseconds
    started_at   TIMESTAMP NOT NULL,
    updated_at   TIMESTAMP NOT NULL,
    ended_at     TIMESTAMP,
    PRIMARY KEY (rollout_id, device_id)
);

-- +goose Down
DROP TABLE upgrade_jobs;
DROP TABLE upgrade_rollouts;
DROP TABLE upgrade_settings;
