-- +goose Up
ALTER TABLE alerts ADD COLUMN assignee TEXT NOT NULL DEFAULT '';
ALTER TABLE alerts ADD COLUMN classification TEXT NOT NULL DEFAULT 'NotSet';
ALTER TABLE alerts ADD COLUMN determination TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN name TEXT NOT NULL DEFAULT '';
-- 0 for what the alerts say.
ALTER TABLE incidents ADD COLUMN severity INTEGER NOT NULL DEFAULT 0;
ALTER TABLE incidents ADD COLUMN classification TEXT NOT NULL DEFAULT 'NotSet';
ALTER TABLE incidents ADD COLUMN determination TEXT NOT NULL DEFAULT '';
CREATE INDEX alerts_category ON alerts (organization_id, category, last_activity DESC);

-- Who changed what of an alert or an incident, and when. One of the two ids is
-- set, or both for what was done to an alert because of its incident.
CREATE TABLE incident_activity (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    incident_id INTEGER REFERENCES incidents (id),
    alert_id    TEXT REFERENCES alerts (id),
    at          TIMESTAMP NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    was         TEXT NOT NULL,
    became      TEXT NOT NULL
);
CREATE INDEX incident_activity_incident ON incident_activity (incident_id);
CREATE INDEX incident_activity_alert ON incident_activity (alert_id);

CREATE TABLE incident_comments (
    id          TEXT PRIMARY KEY,
    incident_id INTEGER REFERENCES incidents (id),
    alert_id    TEXT REFERENCES alerts (id),
    at          TIMESTAMP NOT NULL,
    author      TEXT NOT NULL,
    text        TEXT NOT NULL
);
CREATE INDEX incident_comments_incident ON incident_comments (incident_id);
CREATE INDEX incident_comments_alert ON incident_comments (alert_id);

-- +goose Down
DROP TABLE incident_comments;
DROP TABLE incident_activity;
DROP INDEX alerts_category;
ALTER TABLE incidents DROP COLUMN determination;
ALTER TABLE incidents DROP COLUMN classification;
ALTER TABLE incidents DROP COLUMN severity;
ALTER TABLE incidents DROP COLUMN name;
ALTER TABLE alerts DROP COLUMN determination;
ALTER TABLE alerts DROP COLUMN classification;
ALTER TABLE alerts DROP COLUMN assignee;
