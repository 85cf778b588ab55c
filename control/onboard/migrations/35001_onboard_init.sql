-- +goose Up
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
);

-- +goose Down
DROP TABLE onboarding;
