-- +goose Up
CREATE TABLE incidents (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT NOT NULL,
    device_id       TEXT NOT NULL,
    status          TEXT NOT NULL,
    assignee        TEXT NOT NULL DEFAULT '',
    merged_into     INTEGER REFERENCES incidents (id),
    created_at      TIMESTAMP NOT NULL,
    first_activity  TIMESTAMP NOT NULL,
    last_activity   TIMESTAMP NOT NULL
);
CREATE INDEX incidents_activity ON incidents (organization_id, last_activity DESC);

CREATE TABLE alerts (
    id               TEXT PRIMARY KEY,
    organization_id  TEXT NOT NULL,
    device_id        TEXT NOT NULL,
    incident_id      INTEGER REFERENCES incidents (id),
    merged_into      TEXT REFERENCES alerts (id),
    fold             TEXT NOT NULL,
    title            TEXT NOT NULL,
    severity         INTEGER NOT NULL,
    status           TEXT NOT NULL,
    category         TEXT NOT NULL,
    detection_source TEXT NOT NULL,
    threat_name      TEXT NOT NULL,
    state            TEXT NOT NULL,
    brief            TEXT NOT NULL,
    finding          TEXT NOT NULL,
    occurrences      INTEGER NOT NULL,
    test             BOOLEAN NOT NULL,
    created_at       TIMESTAMP NOT NULL,
    first_activity   TIMESTAMP NOT NULL,
    last_activity    TIMESTAMP NOT NULL
);
CREATE INDEX alerts_activity ON alerts (organization_id, last_activity DESC);
CREATE INDEX alerts_device ON alerts (device_id, last_activity DESC);
CREATE INDEX alerts_incident ON alerts (incident_id);
CREATE INDEX alerts_fold ON alerts (fold, last_activity);

-- What was taken already: a device may tell a finding again with what became
-- of it since.
CREATE TABLE findings (
    id       TEXT NOT NULL,
    state    TEXT NOT NULL,
    alert_id TEXT NOT NULL REFERENCES alerts (id),
    PRIMARY KEY (id, state)
);
CREATE INDEX findings_alert ON findings (alert_id);

-- The entities by which alerts belong together.
CREATE TABLE alert_keys (
    device_id TEXT NOT NULL,
    key       TEXT NOT NULL,
    role      TEXT NOT NULL,
    alert_id  TEXT NOT NULL REFERENCES alerts (id),
    PRIMARY KEY (device_id, key, role, alert_id)
) WITHOUT ROWID;
CREATE INDEX alert_keys_alert ON alert_keys (alert_id);

-- +goose Down
DROP TABLE alert_keys;
DROP TABLE findings;
DROP TABLE alerts;
DROP TABLE incidents;
