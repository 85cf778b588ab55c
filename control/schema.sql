CREATE TABLE alert_keys (
    device_id TEXT NOT NULL,
    key       TEXT NOT NULL,
    role      TEXT NOT NULL,
    alert_id  TEXT NOT NULL REFERENCES alerts (id),
    PRIMARY KEY (device_id, key, role, alert_id)
) WITHOUT ROWID;

CREATE INDEX alert_keys_alert ON alert_keys (alert_id);

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
, assignee TEXT NOT NULL DEFAULT '', classification TEXT NOT NULL DEFAULT 'NotSet', determination TEXT NOT NULL DEFAULT '');

CREATE INDEX alerts_activity ON alerts (organization_id, last_activity DESC);

CREATE INDEX alerts_category ON alerts (organization_id, category, last_activity DESC);

CREATE INDEX alerts_device ON alerts (device_id, last_activity DESC);

CREATE INDEX alerts_fold ON alerts (fold, last_activity);

CREATE INDEX alerts_incident ON alerts (incident_id);

CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
BEGIN
  SELECT RAISE(ABORT, 'the audit log is append only');
END;

CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
BEGIN
  SELECT RAISE(ABORT, 'the audit log is append only');
END;

CREATE TABLE audit_log (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time TIMESTAMP NOT NULL,
  actor_kind TEXT NOT NULL,
  actor_id TEXT NOT NULL,
  actor_name TEXT NOT NULL,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  target_name TEXT NOT NULL,
  detail TEXT NOT NULL
, organization_id TEXT NOT NULL DEFAULT '');

CREATE TABLE certificates (
    serial     TEXT PRIMARY KEY,
    device_id  TEXT NOT NULL,
    issued_at  TIMESTAMP NOT NULL,
    not_after  TIMESTAMP NOT NULL,
    revoked_at TIMESTAMP
, issuer TEXT NOT NULL DEFAULT '');

CREATE INDEX certificates_device ON certificates (device_id, issued_at DESC);

CREATE TABLE connector_host_keys (
    connector_id TEXT NOT NULL,
    address      TEXT NOT NULL,
    key          TEXT NOT NULL,
    first_seen   TIMESTAMP NOT NULL,
    offered      TEXT NOT NULL DEFAULT '',
    offered_at   TIMESTAMP,
    PRIMARY KEY (connector_id, address)
);

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

CREATE TABLE detection_test_runs (
	id TEXT PRIMARY KEY,
	organization_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	test TEXT NOT NULL,
	started_at TIMESTAMP NOT NULL,
	updated_at TIMESTAMP NOT NULL,
	started_by TEXT NOT NULL, -- name of a person or token, '' when somebody on the device did
	alert_id TEXT NOT NULL,
	incident_id TEXT NOT NULL,
	run TEXT NOT NULL -- drill.Run as JSON
);

CREATE INDEX detection_test_runs_device ON detection_test_runs (device_id, started_at);

CREATE INDEX detection_test_runs_organization ON detection_test_runs (organization_id, started_at);

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
, expired_at TIMESTAMP);

CREATE INDEX devices_environment ON devices (environment_id, name);

CREATE INDEX devices_name ON devices (name);

CREATE TABLE environments (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name            TEXT NOT NULL,
    kind            TEXT NOT NULL,
    created_at      TIMESTAMP NOT NULL,
    servers         BOOLEAN NOT NULL DEFAULT FALSE,
    tier            TEXT NOT NULL DEFAULT 'P2',
    settings        TEXT NOT NULL DEFAULT '{}',
    filesystems     TEXT NOT NULL DEFAULT '[]',
    version         INTEGER NOT NULL DEFAULT 1,
    updated_at      TIMESTAMP NOT NULL,
    updated_by      TEXT NOT NULL DEFAULT ''
, external_id TEXT NOT NULL DEFAULT '');

CREATE UNIQUE INDEX environments_name ON environments (organization_id, name);

CREATE TABLE findings (
    id       TEXT NOT NULL,
    state    TEXT NOT NULL,
    alert_id TEXT NOT NULL REFERENCES alerts (id),
    PRIMARY KEY (id, state)
);

CREATE INDEX findings_alert ON findings (alert_id);

CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);

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

CREATE INDEX incident_activity_alert ON incident_activity (alert_id);

CREATE INDEX incident_activity_incident ON incident_activity (incident_id);

CREATE TABLE incident_comments (
    id          TEXT PRIMARY KEY,
    incident_id INTEGER REFERENCES incidents (id),
    alert_id    TEXT REFERENCES alerts (id),
    at          TIMESTAMP NOT NULL,
    author      TEXT NOT NULL,
    text        TEXT NOT NULL
);

CREATE INDEX incident_comments_alert ON incident_comments (alert_id);

CREATE INDEX incident_comments_incident ON incident_comments (incident_id);

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
, name TEXT NOT NULL DEFAULT '', severity INTEGER NOT NULL DEFAULT 0, classification TEXT NOT NULL DEFAULT 'NotSet', determination TEXT NOT NULL DEFAULT '');

CREATE INDEX incidents_activity ON incidents (organization_id, last_activity DESC);

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
, machine_id TEXT NOT NULL DEFAULT '');

CREATE INDEX join_tokens_environment ON join_tokens (environment_id, created_at DESC);

CREATE TABLE machine_coverage (
    environment_id TEXT NOT NULL,
    at             TIMESTAMP NOT NULL,
    machines       INTEGER NOT NULL,
    protected      INTEGER NOT NULL,
    failed         INTEGER NOT NULL,
    not_applicable INTEGER NOT NULL,
    PRIMARY KEY (environment_id, at)
);

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
, offboarded_at TIMESTAMP, "left" BOOLEAN NOT NULL DEFAULT FALSE);

CREATE INDEX machines_connector ON machines (connector_id, external_id);

CREATE INDEX machines_environment ON machines (environment_id, name);

CREATE TABLE notification_outbox (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    notification_id TEXT NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    message         TEXT NOT NULL,
    created_at      TIMESTAMP NOT NULL,
    attempts        INTEGER NOT NULL,
    dead            BOOLEAN NOT NULL,
    detail          TEXT NOT NULL
);

CREATE INDEX notification_outbox_next ON notification_outbox (notification_id, dead, seq);

CREATE TABLE notifications (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name            TEXT NOT NULL,
    kind            TEXT NOT NULL,
    enabled         BOOLEAN NOT NULL,
    min_severity    INTEGER NOT NULL,
    include_tests   BOOLEAN NOT NULL,
    triggers        TEXT NOT NULL,
    target          TEXT NOT NULL,
    secret          BLOB,               -- sealed
    version         INTEGER NOT NULL,
    dropped         INTEGER NOT NULL,   -- messages that did not fit into the queue
    last_at         TIMESTAMP,
    last_ok         BOOLEAN NOT NULL,
    last_detail     TEXT NOT NULL,
    created_at      TIMESTAMP NOT NULL,
    UNIQUE (organization_id, name)
);

CREATE TABLE onboarding (
    environment_id TEXT PRIMARY KEY,
    automatic      BOOLEAN NOT NULL,
    concurrency    INTEGER NOT NULL,
    dry_run        BOOLEAN NOT NULL,
    "window"       TEXT,
    observe        TEXT NOT NULL,
    exclude        TEXT NOT NULL,
    skip_self_test BOOLEAN NOT NULL,
    version        INTEGER NOT NULL,
    updated_at     TIMESTAMP NOT NULL,
    updated_by     TEXT NOT NULL
, allow_host_offboarding BOOLEAN NOT NULL DEFAULT TRUE, keep_offboarded_days INTEGER NOT NULL DEFAULT 180);

CREATE TABLE organizations (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_at TIMESTAMP NOT NULL
);

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

CREATE TABLE restores (
    made_at     TIMESTAMP NOT NULL,
    restored_at TIMESTAMP NOT NULL
);

CREATE TABLE sessions (
  hash TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at TIMESTAMP NOT NULL,
  last_seen TIMESTAMP NOT NULL,
  expires_at TIMESTAMP NOT NULL,
  address TEXT NOT NULL
);

CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  label TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('reader', 'operator', 'admin')),
  hash TEXT NOT NULL UNIQUE,
  created_at TIMESTAMP NOT NULL,
  created_by TEXT NOT NULL,
  expires_at TIMESTAMP NOT NULL,
  last_used TIMESTAMP
);

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
    ended_at     TIMESTAMP, waited BOOLEAN NOT NULL DEFAULT FALSE, lost INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (rollout_id, device_id)
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

CREATE TABLE upgrade_settings (
    organization_id TEXT PRIMARY KEY,
    automatic       BOOLEAN NOT NULL,
    target          TEXT NOT NULL, -- a version, or newest
    rings           TEXT NOT NULL, -- JSON
    version         INTEGER NOT NULL,
    updated_at      TIMESTAMP NOT NULL,
    updated_by      TEXT NOT NULL
);

CREATE TABLE users (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations (id),
  name TEXT NOT NULL UNIQUE COLLATE NOCASE,
  role TEXT NOT NULL CHECK (role IN ('reader', 'operator', 'admin')),
  password_hash TEXT NOT NULL,
  must_change_password BOOLEAN NOT NULL,
  created_at TIMESTAMP NOT NULL,
  last_sign_in TIMESTAMP
);
