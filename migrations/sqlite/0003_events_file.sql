-- Size and hash of a job's events.ndjson, once its events have moved there.
ALTER TABLE jobs ADD COLUMN events_bytes INTEGER;
ALTER TABLE jobs ADD COLUMN events_sha256 TEXT;
