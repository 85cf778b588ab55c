-- +goose Up
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

-- What is still to be delivered, and what could not be. A delivery that has
-- arrived is deleted.
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

-- +goose Down
DROP TABLE notification_outbox;
DROP TABLE notifications;
