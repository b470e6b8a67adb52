-- Drafts of configs, and since when a workspace's active version is it.

ALTER TABLE workspaces ADD COLUMN active_since INTEGER;
UPDATE workspaces SET active_since =
    (SELECT max(at) FROM audit WHERE audit.workspace_id = workspaces.id AND audit.action = 'config.activate')
    WHERE active_version_id IS NOT NULL;

CREATE TABLE drafts (
    id TEXT PRIMARY KEY,
    config_id TEXT NOT NULL REFERENCES configs (id),
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    title TEXT NOT NULL,
    base_version_id TEXT REFERENCES config_versions (id),
    revision INTEGER NOT NULL DEFAULT 1,
    created_by TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX drafts_of_config ON drafts (config_id, id);
CREATE INDEX drafts_of_workspace ON drafts (workspace_id);

-- The content of a file is in a package of the workspace while nobody has changed it, else a blob that its id names. As with
-- documents, a row with deleted_at has no file: before that time it is being uploaded, after it its blob is to be swept.
CREATE TABLE draft_files (
    id TEXT PRIMARY KEY,
    draft_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    path TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    package_sha256 TEXT,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX draft_files_of_draft ON draft_files (draft_id, path) WHERE deleted_at IS NULL;
CREATE INDEX draft_files_deleted ON draft_files (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE INDEX audit_of_target ON audit (target_id, id);
