//! The database: SQLite by default, PostgreSQL for more than one process, one behaviour.
//!
//! All SQL of the program is in this folder, one file per concern; nothing above it knows which database there is. Whoever
//! changes the queue (`queue`, `admission`) first locks the one row of `instance`, so that admission, fair claims and counters are exact
//! whatever else runs, in this process or another. The rows of jobs come after it, and where a transaction takes several, by
//! ascending id: what an execution writes (events, seals, heartbeats) does without the first lock, so both meet at the rows.

mod activation;
mod admission;
mod audit;
mod configs;
mod db;
mod documents;
mod drafts;
mod error;
mod events;
mod instance;
mod jobs;
mod keys;
mod network;
mod notify;
mod queue;
mod versions;
mod workspaces;

pub use activation::Moved;
pub use admission::Totals;
pub use audit::{Action, Actor, AuditEntry, AuditFilter, AuditPart};
pub use configs::{Blocked, Config};
pub use db::now_ms;
pub use documents::Document;
pub use drafts::{Draft, DraftFile, Edit, Edited, NewDraft};
pub use error::StoreError;
pub use events::StoredEvent;
pub use instance::{Instance, InstanceChange, NodeRecord, QueueState};
pub use jobs::{DocumentRef, JobFilter, JobRow, StoredFile};
pub use keys::{Key, NewKey, Role};
pub use network::ConfigNetworkChange;
pub use notify::Listener;
pub use queue::{Admitted, Cancelled, Claimed, Defaults, End, Held, Refused, Requeue, Scope, Seal, Submission, Swept};
pub use versions::{NewVersion, Published, Version};
pub use workspaces::{Workspace, WorkspaceChange};

use db::{Database, Result};

/// The database of an instance.
#[derive(Debug, Clone)]
pub struct Store {
    db: Database,
}

impl Store {
    /// Opens the database at `url` (`sqlite:PATH` or `postgres://…`), and brings its schema up to date.
    ///
    /// # Errors
    /// `TooNew` when a newer program has used it, `BadUrl`, or what the database says.
    pub async fn open(url: &str) -> Result<Self> {
        let store = Self { db: Database::open(url).await? };
        // The row that everything locks is there from here on.
        store.instance().await?;
        Ok(store)
    }

    /// Whether more than one process may use this database.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.db, Database::Postgres(_))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn ping(&self) -> Result<()> {
        self.db.fetch("SELECT 1 AS one", Vec::new()).await.map(drop)
    }

    /// Closes every connection; SQLite then has all in its one file.
    pub async fn close(&self) {
        self.db.close().await;
    }
}
