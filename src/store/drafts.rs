//! Drafts of configs: files that can be changed, and become a version when the draft is published. Every change and its entry in
//! the audit are one transaction.

use super::audit::{Action, Actor, Deed};
use super::configs::{self, Blocked};
use super::db::{Arg, Result, Row, Tx, args, now_ms};
use super::versions::{self, NewVersion, Published, Version};
use super::{Store, StoreError};
use crate::ids::{ConfigId, DraftFileId, DraftId, KeyId, VersionId, WorkspaceId};
use serde_json::{Value, json};

/// An upload that takes longer than this is given up, ms.
const UPLOAD_MS: i64 = 24 * 60 * 60 * 1000;

/// A draft.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its id.
    pub id: DraftId,
    /// Its config.
    pub config_id: ConfigId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its name for people.
    pub title: String,
    /// The version that it was made from or last published as.
    pub base_version_id: Option<VersionId>,
    /// From 1; goes up with every change of a file.
    pub revision: i64,
    /// Its files.
    pub files: i64,
    /// Their bytes together.
    pub bytes: i64,
    /// With which key it was made.
    pub created_by: Option<KeyId>,
    /// What that key is for.
    pub author: Option<String>,
    /// When it was made, ms.
    pub created_at: i64,
    /// When a file was last changed, ms.
    pub updated_at: i64,
}

/// A file of a draft. What is at its path may change; the content under its id never does.
#[derive(Debug, Clone)]
pub struct DraftFile {
    /// Its id, which names its blob.
    pub id: DraftFileId,
    /// Its draft.
    pub draft_id: DraftId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Where it is in the package.
    pub path: String,
    /// Bytes.
    pub bytes: i64,
    /// Hash, lower-case hex.
    pub sha256: String,
    /// The package of the workspace that has its content; without one it is a blob.
    pub package_sha256: Option<String>,
    /// Since when its content is this, ms.
    pub updated_at: i64,
}

/// A draft that is to be made.
#[derive(Debug, Clone)]
pub struct NewDraft {
    /// Its config.
    pub config_id: ConfigId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its name for people.
    pub title: String,
    /// The version whose files it begins with.
    pub base: Option<Version>,
    /// Those files: path, bytes, hash.
    pub files: Vec<(String, i64, String)>,
}

/// A change of one file.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Its content is this, which is stored already.
    Put(DraftFile),
    /// It goes.
    Remove(String),
}

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Edited {
    /// The draft's revision now.
    pub revision: i64,
    /// What was at the path before.
    pub before: Option<DraftFile>,
    /// What is there now.
    pub after: Option<DraftFile>,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT d.*, k.name AS author, \
             (SELECT count(*) FROM draft_files f WHERE f.draft_id = d.id AND f.deleted_at IS NULL) AS files, \
             (SELECT CAST(COALESCE(sum(f.bytes), 0) AS BIGINT) FROM draft_files f \
              WHERE f.draft_id = d.id AND f.deleted_at IS NULL) AS bytes \
             FROM drafts d LEFT JOIN api_keys k ON k.id = d.created_by ",
            $tail
        )
    };
}

const ONE: &str = select!("WHERE d.id = $1 AND d.config_id = $2 AND d.workspace_id = $3");
const FILES: &str = "SELECT * FROM draft_files WHERE draft_id = $1 AND deleted_at IS NULL ORDER BY path";
const INSERT_FILES: &str = "INSERT INTO draft_files (id, draft_id, workspace_id, path, bytes, sha256, package_sha256, \
    updated_at, deleted_at) VALUES";

fn read(row: &Row) -> Result<Draft> {
    Ok(Draft {
        id: row.parsed("id")?,
        config_id: row.parsed("config_id")?,
        workspace_id: row.parsed("workspace_id")?,
        title: row.text("title")?,
        base_version_id: row.opt_parsed("base_version_id")?,
        revision: row.int("revision")?,
        files: row.int("files")?,
        bytes: row.int("bytes")?,
        created_by: row.opt_parsed("created_by")?,
        author: row.opt_text("author")?,
        created_at: row.int("created_at")?,
        updated_at: row.int("updated_at")?,
    })
}

fn read_file(row: &Row) -> Result<DraftFile> {
    Ok(DraftFile {
        id: row.parsed("id")?,
        draft_id: row.parsed("draft_id")?,
        workspace_id: row.parsed("workspace_id")?,
        path: row.text("path")?,
        bytes: row.int("bytes")?,
        sha256: row.text("sha256")?,
        package_sha256: row.opt_text("package_sha256")?,
        updated_at: row.int("updated_at")?,
    })
}

fn args_of(file: &DraftFile, deleted_at: Option<i64>) -> Vec<Arg> {
    args![
        &file.id,
        &file.draft_id,
        &file.workspace_id,
        file.path.as_str(),
        file.bytes,
        file.sha256.as_str(),
        file.package_sha256.clone(),
        file.updated_at,
        deleted_at,
    ]
}

/// A draft, and its row locked: whoever changes its files, publishes or deletes it does so alone.
async fn locked(tx: &mut Tx, workspace: &WorkspaceId, config: &ConfigId, id: &DraftId) -> Result<Option<Draft>> {
    let lock = tx.pick("SELECT id FROM drafts WHERE id = $1", "SELECT id FROM drafts WHERE id = $1 FOR UPDATE");
    tx.fetch(lock, args![id]).await?;
    tx.fetch_one(ONE, args![id, config, workspace]).await?.as_ref().map(read).transpose()
}

async fn files_of(tx: &mut Tx, id: &DraftId) -> Result<Vec<DraftFile>> {
    tx.fetch(FILES, args![id]).await?.iter().map(read_file).collect()
}

/// What is in a package only loses its row; a blob is left to be swept.
async fn retire(tx: &mut Tx, file: &DraftFile, now: i64) -> Result<()> {
    if file.package_sha256.is_some() {
        return tx.execute("DELETE FROM draft_files WHERE id = $1", args![&file.id]).await.map(drop);
    }
    tx.execute("UPDATE draft_files SET deleted_at = $2 WHERE id = $1", args![&file.id, now]).await.map(drop)
}

fn deed<'a>(draft: &'a Draft, action: Action, detail: Value) -> Deed<'a> {
    Deed { workspace: Some(&draft.workspace_id), action, target: ("config", draft.config_id.as_str()), detail }
}

impl Store {
    /// Makes a draft, unless its workspace has `max` already.
    ///
    /// # Errors
    /// The database's.
    pub async fn create_draft(
        &self,
        new: &NewDraft,
        max: i64,
        by: &Actor,
    ) -> Result<std::result::Result<Draft, Blocked>> {
        let (id, workspace) = (DraftId::generate(), &new.workspace_id);
        let mut tx = self.db.begin().await?;
        // Drafts are counted under the lock, so that no two take the last place.
        let now = tx.lock().await?.now;
        match configs::fetch(&mut tx, workspace, &new.config_id).await? {
            None => return Ok(Err(Blocked::Gone)),
            Some(config) if config.archived_at.is_some() => return Ok(Err(Blocked::Archived)),
            Some(_) => {}
        }
        let sql = "SELECT count(*) AS drafts FROM drafts WHERE workspace_id = $1";
        if tx.fetch_one(sql, args![workspace]).await?.map_or(Ok(0), |row| row.int("drafts"))? >= max {
            return Ok(Err(Blocked::Full(max)));
        }
        let base = new.base.as_ref();
        tx.execute(
            "INSERT INTO drafts (id, config_id, workspace_id, title, base_version_id, created_by, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
            args![
                &id, &new.config_id, workspace, new.title.as_str(), base.map(|base| &base.id), &by.key_id, now,
            ],
        )
        .await?;
        let files = new.files.iter().map(|(path, bytes, sha256)| {
            let file = DraftFile {
                id: DraftFileId::generate(),
                draft_id: id.clone(),
                workspace_id: workspace.clone(),
                path: path.clone(),
                bytes: *bytes,
                sha256: sha256.clone(),
                package_sha256: base.map(|base| base.package_sha256.clone()),
                updated_at: now,
            };
            args_of(&file, None)
        });
        tx.insert(INSERT_FILES, "", files.collect()).await?;
        let gone = || StoreError::Internal("a draft that was just made is gone".into());
        let draft = locked(&mut tx, workspace, &new.config_id, &id).await?.ok_or_else(gone)?;
        let after = json!({"title": draft.title, "base_version_id": draft.base_version_id});
        let detail = json!({"draft_id": id, "before": null, "after": after});
        tx.note(by, deed(&draft, Action::DraftCreate, detail)).await?;
        tx.commit().await?;
        Ok(Ok(draft))
    }

    /// A draft of a config.
    ///
    /// # Errors
    /// The database's.
    pub async fn draft(&self, workspace: &WorkspaceId, config: &ConfigId, id: &DraftId) -> Result<Option<Draft>> {
        self.db.fetch_one(ONE, args![id, config, workspace]).await?.as_ref().map(read).transpose()
    }

    /// Drafts of a config from the newest, after `before`.
    ///
    /// # Errors
    /// The database's.
    pub async fn drafts(&self, config: &ConfigId, before: Option<&str>, limit: i64) -> Result<Vec<Draft>> {
        const SQL: &str = select!("WHERE d.config_id = $1 AND ($2 IS NULL OR d.id < $2) ORDER BY d.id DESC LIMIT $3");
        let rows = self.db.fetch(SQL, args![config, before.map(str::to_owned), limit]).await?;
        rows.iter().map(read).collect()
    }

    /// The files of a draft, by path. Read the draft before its files, never after: then they are of its revision or of a later
    /// one, and what is published is what was read.
    ///
    /// # Errors
    /// The database's.
    pub async fn draft_files(&self, id: &DraftId) -> Result<Vec<DraftFile>> {
        self.db.fetch(FILES, args![id]).await?.iter().map(read_file).collect()
    }

    /// Notes a file whose content is about to be stored. It is at no path yet, and unless an [edit](Self::edit_draft) puts it
    /// there within a day, its record and its content are swept.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin_draft_file(&self, file: &DraftFile) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.insert(INSERT_FILES, "", vec![args_of(file, Some(file.updated_at + UPLOAD_MS))]).await?;
        tx.commit().await
    }

    /// Gives every upload up that has not ended. Only for the one process of a database of its own, before it takes any.
    ///
    /// # Errors
    /// The database's.
    pub async fn abort_draft_uploads(&self) -> Result<u64> {
        self.db.execute("UPDATE draft_files SET deleted_at = $1 WHERE deleted_at > $1", args![now_ms()]).await
    }

    /// Gives a file up that is at no path.
    ///
    /// # Errors
    /// The database's.
    pub async fn abort_draft_file(&self, id: &DraftFileId) -> Result<()> {
        let sql = "UPDATE draft_files SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NOT NULL";
        self.db.execute(sql, args![id, now_ms()]).await.map(drop)
    }

    /// Changes a file of a draft, if `allowed` says so of the draft and its files as they are. `None` when there is no such
    /// draft; nothing is changed then, nor when it is not allowed. What is so already is no change. A content that is replaced
    /// is left to be swept.
    ///
    /// # Errors
    /// The database's.
    pub async fn edit_draft<E>(
        &self,
        (workspace, config, id): (&WorkspaceId, &ConfigId, &DraftId),
        edit: Edit,
        by: &Actor,
        allowed: impl FnOnce(&Draft, &[DraftFile]) -> std::result::Result<(), E>,
    ) -> Result<Option<std::result::Result<Edited, E>>> {
        let mut tx = self.db.begin().await?;
        let Some(draft) = locked(&mut tx, workspace, config, id).await? else { return Ok(None) };
        let mut files = files_of(&mut tx, id).await?;
        if let Err(refusal) = allowed(&draft, &files) {
            return Ok(Some(Err(refusal)));
        }
        let now = tx.now().await?;
        let (path, after) = match edit {
            Edit::Put(file) => (file.path.clone(), Some(DraftFile { updated_at: now, ..file })),
            Edit::Remove(path) => (path, None),
        };
        let before = files.iter().position(|file| file.path == path).map(|place| files.swap_remove(place));
        let hash = |file: &Option<DraftFile>| file.as_ref().map(|file| file.sha256.clone());
        if hash(&before) == hash(&after) {
            return Ok(Some(Ok(Edited { revision: draft.revision, after: before.clone(), before })));
        }
        if let Some(file) = &before {
            retire(&mut tx, file, now).await?;
        }
        if let Some(file) = &after {
            let put = tx
                .execute(
                    "UPDATE draft_files SET bytes = $2, sha256 = $3, updated_at = $4, deleted_at = NULL WHERE id = $1",
                    args![&file.id, file.bytes, file.sha256.as_str(), now],
                )
                .await?;
            if put == 0 {
                return Err(StoreError::Internal(format!("the upload of {} took longer than a day", file.id)));
            }
        }
        let revision = draft.revision + 1;
        let sql = "UPDATE drafts SET revision = $2, updated_at = $3 WHERE id = $1";
        tx.execute(sql, args![id, revision, now]).await?;
        let sha256 = |file: &Option<DraftFile>| file.as_ref().map(|file| json!({"sha256": file.sha256}));
        let detail = json!({"draft_id": id, "path": path, "before": sha256(&before), "after": sha256(&after)});
        tx.note(by, deed(&draft, Action::DraftEdit, detail)).await?;
        tx.commit().await?;
        Ok(Some(Ok(Edited { revision, before, after })))
    }

    /// Deletes a draft and its files; their blobs are left to be swept. False when there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_draft(
        &self,
        workspace: &WorkspaceId,
        config: &ConfigId,
        id: &DraftId,
        by: &Actor,
    ) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let Some(draft) = locked(&mut tx, workspace, config, id).await? else { return Ok(false) };
        let now = tx.now().await?;
        // Those that are being uploaded give themselves up: their edits find no draft.
        let sql = "UPDATE draft_files SET deleted_at = $2 \
                   WHERE draft_id = $1 AND package_sha256 IS NULL AND deleted_at IS NULL";
        tx.execute(sql, args![id, now]).await?;
        tx.execute("DELETE FROM draft_files WHERE draft_id = $1 AND package_sha256 IS NOT NULL", args![id]).await?;
        tx.execute("DELETE FROM drafts WHERE id = $1", args![id]).await?;
        let before = json!({"title": draft.title, "revision": draft.revision});
        let detail = json!({"draft_id": id, "before": before, "after": null});
        tx.note(by, deed(&draft, Action::DraftDelete, detail)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Publishes the package that a draft is at a revision, which is stored already, if the draft still is at it. The draft
    /// stays, based on that version: its files are then in the version's package.
    ///
    /// # Errors
    /// The database's.
    pub async fn publish_draft(
        &self,
        draft: &Draft,
        new: &NewVersion,
        by: &Actor,
    ) -> Result<std::result::Result<Published, Blocked>> {
        let Draft { id, config_id, workspace_id, revision, .. } = draft;
        let mut tx = self.db.begin().await?;
        let now = tx.lock().await?.now;
        let config = match configs::fetch(&mut tx, workspace_id, config_id).await? {
            None => return Ok(Err(Blocked::Gone)),
            Some(config) if config.archived_at.is_some() => return Ok(Err(Blocked::Archived)),
            Some(config) => config,
        };
        match locked(&mut tx, workspace_id, config_id, id).await? {
            None => return Ok(Err(Blocked::Gone)),
            Some(draft) if draft.revision != *revision => return Ok(Err(Blocked::Changed(draft.revision))),
            Some(_) => {}
        }
        let published = versions::publish(&mut tx, &config, new, Some(id), by, now).await?;
        let (Published::New(version) | Published::Unchanged(version)) = &published;
        let sql = "UPDATE drafts SET base_version_id = $2 WHERE id = $1";
        tx.execute(sql, args![id, &version.id]).await?;
        let mut packed = Vec::new();
        for file in files_of(&mut tx, id).await?.into_iter().filter(|file| file.package_sha256.is_none()) {
            retire(&mut tx, &file, now).await?;
            let package_sha256 = Some(version.package_sha256.clone());
            let file = DraftFile { id: DraftFileId::generate(), package_sha256, ..file };
            packed.push(args_of(&file, None));
        }
        tx.insert(INSERT_FILES, "", packed).await?;
        tx.commit().await?;
        Ok(Ok(published))
    }

    /// Files of drafts that are at no path any more, and uploads that were given up: their blobs may be left.
    ///
    /// # Errors
    /// The database's.
    pub async fn deleted_draft_files(&self, limit: i64) -> Result<Vec<DraftFile>> {
        let sql = "SELECT * FROM draft_files WHERE deleted_at <= $1 ORDER BY deleted_at LIMIT $2";
        self.db.fetch(sql, args![now_ms(), limit]).await?.iter().map(read_file).collect()
    }

    /// Removes the record of such a file, after its blob.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_draft_file(&self, id: &DraftFileId) -> Result<()> {
        let sql = "DELETE FROM draft_files WHERE id = $1 AND deleted_at <= $2";
        self.db.execute(sql, args![id, now_ms()]).await.map(drop)
    }
}
