-- +goose Up
CREATE TABLE incidents (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT NOT NULL,
    device_id       TEXT NOT NULL,
    status          TEXT NOT NULL,
    assignee        TEXT NOT NULL DEFAULT '',
    merged_into     INTEGER,
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
    title            TEXT NOT NULL,
    severity         INTEGER NOT NULL,
    status           TEXT NOT NULL,
    category         TEXT NOT NULL,
    detection_source TEXT NOT NULL,
    threat_name      TEXT NOT NULL,
    state            TEXT NOT NULL,
    finding          TEXT NOT NULL,
    keys             TEXT NOT NULL,
    occurrences      INTEGER NOT NULL,
    test             BOOLEAN NOT NULL,
    created_at       TIMESTAMP NOT NULL,
    first_activity   TIMESTAMP NOT NULL,
    last_activity    TIMESTAMP NOT NULL
);
CREATE INDEX alerts_activity ON alerts (organization_id, last_activity DESC);
CREATE INDEX alerts_device ON alerts (device_id, last_activity DESC);
CREATE INDEX alerts_incident ON alerts (incident_id);
CREATE TABLE findings (
    id       TEXT PRIMARY KEY,
    alert_id TEXT NOT NULL REFERENCES alerts (id)
);
CREATE TABLE incident_keys (
    device_id   TEXT NOT NULL,
    key         TEXT NOT NULL,
    incident_id INTEGER NOT NULL REFERENCES incidents (id),
    last        TIMESTAMP NOT NULL,
    PRIMARY KEY (device_id, key, incident_id)
);

-- +goose Down
DROP TABLE incident_keys;
DROP TABLE findings;
DROP TABLE alerts;
DROP TABLE incidents;
