-- Who submitted a job is said by its row for as long as that is there, and by the audit from then on: the row that says it can
-- neither be changed nor be deleted before.

ALTER TABLE jobs ADD COLUMN request_id TEXT;

CREATE TRIGGER jobs_keep_their_origin
    BEFORE UPDATE OF id, workspace_id, version_id, retry_of, documents, submitted_by, request_id, queued_at ON jobs
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

CREATE TRIGGER jobs_leave_an_entry BEFORE DELETE ON jobs
WHEN OLD.submitted_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM audit WHERE id = 'aud_' || substr(OLD.id, 5))
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
