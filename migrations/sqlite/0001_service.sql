-- Times are milliseconds since the Unix epoch, flags are 0 or 1, and structured values are JSON text: the same in both databases.

-- One row: the installation, its admission counter and its share clock. Whoever changes the queue locks it first, so that
-- counters, admission and fair claims are exact under any concurrency.
CREATE TABLE instance (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    queued INTEGER NOT NULL DEFAULT 0,
    claimed INTEGER NOT NULL DEFAULT 0,
    share_clock INTEGER NOT NULL DEFAULT 0,
    queue_state TEXT NOT NULL DEFAULT 'on' CHECK (queue_state IN ('on', 'paused', 'off')),
    safe_mode INTEGER NOT NULL DEFAULT 0,
    max_queued INTEGER,
    max_concurrency INTEGER
) STRICT;

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    hostname TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    max_concurrency INTEGER NOT NULL,
    draining INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE workspaces (
    id TEXT PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    active_version_id TEXT,
    weight INTEGER NOT NULL DEFAULT 100 CHECK (weight BETWEEN 1 AND 10000),
    max_queued INTEGER,
    max_running INTEGER,
    paused INTEGER NOT NULL DEFAULT 0,
    queued INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    claimed INTEGER NOT NULL DEFAULT 0,
    share INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX workspaces_waiting ON workspaces (share, id) WHERE queued > 0 AND paused = 0;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    prefix TEXT NOT NULL UNIQUE,
    secret_sha256 TEXT NOT NULL,
    workspace_id TEXT REFERENCES workspaces (id),
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    created_by TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used_at INTEGER
) STRICT;
CREATE INDEX api_keys_of_workspace ON api_keys (workspace_id, id);

CREATE TABLE documents (
    id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    filename TEXT NOT NULL,
    content_type TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created_by TEXT,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE INDEX documents_of_workspace ON documents (workspace_id, id) WHERE deleted_at IS NULL;
CREATE INDEX documents_deleted ON documents (deleted_at) WHERE deleted_at IS NOT NULL;

-- A config is also a lane of its workspace's queue: its counters bound how many of its jobs run at once.
CREATE TABLE configs (
    id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    slug TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    created_by TEXT,
    created_at INTEGER NOT NULL,
    archived_at INTEGER,
    max_running INTEGER,
    queued INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    UNIQUE (workspace_id, slug)
) STRICT;
CREATE INDEX configs_of_workspace ON configs (workspace_id, id);
CREATE INDEX configs_waiting ON configs (workspace_id) WHERE queued > 0;

CREATE TABLE config_versions (
    id TEXT PRIMARY KEY,
    config_id TEXT NOT NULL REFERENCES configs (id),
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    number INTEGER NOT NULL,
    package_sha256 TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    manifest_version TEXT NOT NULL,
    package_bytes INTEGER NOT NULL,
    created_by TEXT,
    created_at INTEGER NOT NULL,
    archived_at INTEGER,
    UNIQUE (config_id, number)
) STRICT;

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    config_id TEXT NOT NULL REFERENCES configs (id),
    version_id TEXT NOT NULL REFERENCES config_versions (id),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    phase TEXT,
    attempt INTEGER NOT NULL,
    retry_of TEXT,
    execution INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL,
    queue_rank INTEGER NOT NULL,
    input_hash TEXT NOT NULL,
    documents TEXT NOT NULL,
    metadata TEXT,
    trace_id TEXT NOT NULL,
    submitted_by TEXT,
    queued_at INTEGER NOT NULL,
    queue_deadline INTEGER,
    started_at INTEGER,
    completed_at INTEGER,
    heartbeat_at INTEGER,
    node_id TEXT,
    lease_expires_at INTEGER,
    sealed INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 1,
    next_seq INTEGER NOT NULL,
    events_stored INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    result TEXT
) STRICT;
-- The claim reads heads of lanes; only live jobs are in the indexes that it and the sweeps use.
CREATE INDEX jobs_lane ON jobs (config_id, queue_rank, id) WHERE state = 'queued';
CREATE INDEX jobs_deadline ON jobs (queue_deadline) WHERE state = 'queued' AND queue_deadline IS NOT NULL;
CREATE INDEX jobs_lease ON jobs (lease_expires_at) WHERE state IN ('running', 'cancelling');
CREATE INDEX jobs_node ON jobs (node_id) WHERE state IN ('running', 'cancelling');
CREATE INDEX jobs_unstored ON jobs (completed_at) WHERE events_stored = 0 AND completed_at IS NOT NULL;
CREATE INDEX jobs_of_workspace ON jobs (workspace_id, id);
CREATE INDEX jobs_finished ON jobs (workspace_id, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX jobs_twins ON jobs (input_hash, version_id);

CREATE TABLE job_documents (
    document_id TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (document_id, job_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_documents_of_job ON job_documents (job_id);

-- Events of live jobs; those of finished ones move to the job's events.ndjson (events_stored 1), which retention may delete (2).
CREATE TABLE job_events (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    job_id TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Submissions look keys up by the batch, across workspaces.
    PRIMARY KEY (idempotency_key, workspace_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
