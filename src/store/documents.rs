//! Documents: their records; their bytes are blobs.

use super::Store;
use super::audit::{Action, Actor, Deed};
use super::db::{Result, Row, args, now_ms};
use crate::ids::{DocumentId, KeyId, WorkspaceId};
use serde_json::{Value, json};
use std::collections::HashSet;

/// An upload that takes longer than this is given up, ms.
const UPLOAD_MS: i64 = 24 * 60 * 60 * 1000;

/// A document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// The user's file name; data, never a path.
    pub filename: String,
    /// The content type that the upload named.
    pub content_type: String,
    /// Bytes.
    pub bytes: i64,
    /// Hash, lower-case hex.
    pub sha256: String,
    /// Who uploaded it.
    pub created_by: Option<KeyId>,
    /// When it was uploaded, ms.
    pub created_at: i64,
}

fn read(row: &Row) -> Result<Document> {
    Ok(Document {
        id: row.parsed("id")?,
        workspace_id: row.parsed("workspace_id")?,
        filename: row.text("filename")?,
        content_type: row.text("content_type")?,
        bytes: row.int("bytes")?,
        sha256: row.text("sha256")?,
        created_by: row.opt_parsed("created_by")?,
        created_at: row.int("created_at")?,
    })
}

/// What the audit says of a document. An entry stays when all else is gone, so its name, which may be a person's, is not in it.
fn content(document: &Document) -> Value {
    json!({"bytes": document.bytes, "sha256": document.sha256})
}

fn deed<'a>(action: Action, document: &'a Document, before: &Value, after: &Value) -> Option<Deed<'a>> {
    Deed::change(Some(&document.workspace_id), action, ("document", document.id.as_str()), before, after)
}

impl Store {
    /// Notes a document whose content is about to be stored. Nobody sees it yet, and unless it is
    /// [completed](Self::complete_document) within a day, its record and its content are swept.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin_document(&self, document: &Document) -> Result<()> {
        self.db
            .execute(
                "INSERT INTO documents (id, workspace_id, filename, content_type, bytes, sha256, created_by, created_at, \
                 deleted_at) VALUES ($1, $2, $3, $4, 0, '', $5, $6, $7)",
                args![
                    &document.id, &document.workspace_id, document.filename.as_str(), document.content_type.as_str(),
                    document.created_by.as_ref(), document.created_at, document.created_at + UPLOAD_MS,
                ],
            )
            .await
            .map(drop)
    }

    /// Makes a document visible, now that its content is stored.
    ///
    /// # Errors
    /// The database's.
    pub async fn complete_document(&self, document: &Document, by: &Actor) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let completed = tx
            .execute(
                "UPDATE documents SET bytes = $2, sha256 = $3, deleted_at = NULL WHERE id = $1",
                args![&document.id, document.bytes, document.sha256.as_str()],
            )
            .await?;
        if completed == 0 {
            return Err(super::StoreError::Internal(format!("the upload of {} took longer than a day", document.id)));
        }
        let deed = deed(Action::DocumentUpload, document, &Value::Null, &content(document));
        tx.commit_noted(by, deed).await
    }

    /// Gives up every upload that has not ended. Only for the one process of a database of its own, before it takes any.
    ///
    /// # Errors
    /// The database's.
    pub async fn abort_uploads(&self) -> Result<u64> {
        self.db.execute("UPDATE documents SET deleted_at = $1 WHERE deleted_at > $1", args![now_ms()]).await
    }

    /// Gives a document up whose content could not be stored.
    ///
    /// # Errors
    /// The database's.
    pub async fn abort_document(&self, id: &DocumentId) -> Result<()> {
        self.db.execute("UPDATE documents SET deleted_at = $2 WHERE id = $1", args![id, now_ms()]).await.map(drop)
    }

    /// A document of a workspace.
    ///
    /// # Errors
    /// The database's.
    pub async fn document(&self, workspace: &WorkspaceId, id: &DocumentId) -> Result<Option<Document>> {
        let row = self
            .db
            .fetch_one(
                "SELECT * FROM documents WHERE id = $1 AND workspace_id = $2 AND deleted_at IS NULL",
                args![id, workspace],
            )
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Documents of a workspace from the newest, after `before`.
    ///
    /// # Errors
    /// The database's.
    pub async fn documents(&self, workspace: &WorkspaceId, before: Option<&str>, limit: i64) -> Result<Vec<Document>> {
        let rows = self
            .db
            .fetch(
                "SELECT * FROM documents WHERE workspace_id = $1 AND deleted_at IS NULL AND ($2 IS NULL OR id < $2) \
                 ORDER BY id DESC LIMIT $3",
                args![workspace, before.map(str::to_owned), limit],
            )
            .await?;
        rows.iter().map(read).collect()
    }

    /// Deletes a document unless a job that is not finished needs it. `Some(true)` when it is deleted, `Some(false)` when it
    /// is in use, `None` when there is none. The blob is the caller's to delete, after. `by` is none for retention, of which the
    /// audit says nothing.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_document(
        &self,
        workspace: &WorkspaceId,
        id: &DocumentId,
        by: Option<&Actor>,
    ) -> Result<Option<bool>> {
        let mut tx = self.db.begin().await?;
        // Submissions look at documents under the same lock, so that none can take this one meanwhile.
        tx.lock().await?;
        let found = tx
            .fetch_one(
                "SELECT * FROM documents WHERE id = $1 AND workspace_id = $2 AND deleted_at IS NULL",
                args![id, workspace],
            )
            .await?;
        let Some(found) = found else { return Ok(None) };
        let user = tx
            .fetch_one(
                "SELECT j.id FROM job_documents d JOIN jobs j ON j.id = d.job_id \
                 WHERE d.document_id = $1 AND j.state IN ('queued', 'running', 'cancelling') LIMIT 1",
                args![id],
            )
            .await?;
        if user.is_some() {
            return Ok(Some(false));
        }
        tx.execute("UPDATE documents SET deleted_at = $2 WHERE id = $1", args![id, now_ms()]).await?;
        if let Some(by) = by {
            let document = read(&found)?;
            if let Some(deed) = deed(Action::DocumentDelete, &document, &content(&document), &Value::Null) {
                tx.note(by, deed).await?;
            }
        }
        tx.commit().await?;
        Ok(Some(true))
    }

    /// Documents that retention may delete: those older than `before` ms, or, with a quota, the oldest above it, and in use by
    /// no unfinished job. Each once, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub async fn documents_past_retention(
        &self,
        before: Option<i64>,
        quota_bytes: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Document>> {
        let mut past = Vec::new();
        const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM job_documents u JOIN jobs j ON j.id = u.job_id \
            WHERE u.document_id = d.id AND j.state IN ('queued', 'running', 'cancelling'))";
        if let Some(before) = before {
            let sql = format!(
                "SELECT d.* FROM documents d WHERE d.deleted_at IS NULL AND d.created_at < $1 AND {UNUSED} ORDER BY d.id LIMIT $2"
            );
            let rows = self.db.fetch(sqlx::AssertSqlSafe(sql), args![before, limit]).await?;
            past.extend(rows.iter().map(read).collect::<Result<Vec<_>>>()?);
        }
        if let Some(quota) = quota_bytes {
            let sql = format!(
                "SELECT d.* FROM (SELECT documents.*, CAST(sum(bytes) OVER (PARTITION BY workspace_id ORDER BY id DESC) AS BIGINT) AS upto \
                 FROM documents WHERE deleted_at IS NULL) d WHERE d.upto > $1 AND {UNUSED} ORDER BY d.id LIMIT $2"
            );
            let rows = self.db.fetch(sqlx::AssertSqlSafe(sql), args![quota, limit]).await?;
            past.extend(rows.iter().map(read).collect::<Result<Vec<_>>>()?);
        }
        let wanted = usize::try_from(limit).unwrap_or_default();
        let mut named = HashSet::new();
        past.retain(|document| named.len() < wanted && named.insert(document.id.clone()));
        Ok(past)
    }

    /// Deleted documents and given up uploads whose content may be left. An upload that goes on is none of them: its time to
    /// be given up is still to come.
    ///
    /// # Errors
    /// The database's.
    pub async fn deleted_documents(&self, limit: i64) -> Result<Vec<Document>> {
        let rows = self
            .db
            .fetch(
                // An upload that goes on has a time to come.
                "SELECT * FROM documents WHERE deleted_at <= $1 ORDER BY deleted_at LIMIT $2",
                args![now_ms(), limit],
            )
            .await?;
        rows.iter().map(read).collect()
    }

    /// Removes the record of a deleted document, after its blob.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_document(&self, id: &DocumentId) -> Result<()> {
        self.db.execute("DELETE FROM documents WHERE id = $1 AND deleted_at <= $2", args![id, now_ms()]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_upload_that_goes_on_is_never_swept_and_one_that_was_given_up_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}/x.db", folder.path().display())).await.unwrap();
        store.instance().await.unwrap();
        let workspace_id = store.create_workspace("w", "w", None).await.unwrap().id;
        let upload = || Document {
            id: DocumentId::generate(),
            workspace_id: workspace_id.clone(),
            filename: "a".into(),
            content_type: String::new(),
            bytes: 0,
            sha256: String::new(),
            created_by: None,
            created_at: now_ms(),
        };
        let (going_on, given_up) = (upload(), upload());
        store.begin_document(&going_on).await.unwrap();
        store.begin_document(&given_up).await.unwrap();
        store.abort_document(&given_up.id).await.unwrap();
        let swept: Vec<DocumentId> =
            store.deleted_documents(10).await.unwrap().into_iter().map(|document| document.id).collect();
        assert_eq!(swept, [given_up.id]);
        store.forget_document(&going_on.id).await.unwrap();
        let by = Actor { key_id: KeyId::generate(), name: "root".into(), request_id: String::new() };
        store.complete_document(&going_on, &by).await.unwrap();
        assert!(store.document(&workspace_id, &going_on.id).await.unwrap().is_some());
    }
}
