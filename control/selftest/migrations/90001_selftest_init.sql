-- +goose Up
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

-- +goose Down
DROP TABLE detection_test_runs;
