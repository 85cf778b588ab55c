-- +goose Up
CREATE TABLE organizations (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_at TIMESTAMP NOT NULL
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

-- A session or token is found by the SHA-256 of its secret, which is kept
-- nowhere.
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

-- +goose Down
DROP TABLE tokens;
DROP TABLE sessions;
DROP TABLE users;
DROP TABLE organizations;
