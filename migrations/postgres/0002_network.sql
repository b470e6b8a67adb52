-- The network policy's stored layers, and who changed what.

ALTER TABLE instance ADD COLUMN network_switch TEXT CHECK (network_switch IN ('off', 'deny', 'manifest'));
ALTER TABLE workspaces ADD COLUMN network TEXT NOT NULL DEFAULT 'inherit'
    CHECK (network IN ('inherit', 'deny', 'install_only', 'allow'));
ALTER TABLE configs ADD COLUMN network TEXT NOT NULL DEFAULT 'inherit'
    CHECK (network IN ('inherit', 'deny', 'install_only', 'allow'));
ALTER TABLE configs ADD COLUMN allowed_hosts TEXT NOT NULL DEFAULT '[]';
ALTER TABLE configs ADD COLUMN source_builds BIGINT NOT NULL DEFAULT 0;

-- What it names may be gone by now, so nothing here refers to another table.
CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    workspace_id TEXT,
    actor_id TEXT NOT NULL,
    actor_name TEXT NOT NULL,
    action TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id TEXT NOT NULL,
    detail TEXT NOT NULL,
    request_id TEXT NOT NULL
);
CREATE INDEX audit_of_workspace ON audit (workspace_id, id);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END
$$;
CREATE TRIGGER audit_keeps_rows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_is_append_only();
