//! Telling other processes on the same database what changed. A hint: whoever misses one looks by itself a little later.

use super::Store;
use super::db::{Database, Result, args};
use sqlx::postgres::PgListener;

const CHANNEL: &str = "ade";

/// Hears what other processes tell.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// The next hint; `None` when some may have been missed, because the connection was lost.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Option<String>> {
        Ok(self.0.try_recv().await?.map(|notification| notification.payload().to_owned()))
    }
}

impl Store {
    /// Tells the other processes. Nothing happens where there are none.
    ///
    /// # Errors
    /// The database's.
    pub async fn tell(&self, hint: &str) -> Result<()> {
        match &self.db {
            Database::Sqlite { .. } => Ok(()),
            // Outside of the queue's transactions: a notification takes a lock of the whole database when it commits.
            Database::Postgres(_) => self.db.fetch("SELECT pg_notify($1, $2)", args![CHANNEL, hint]).await.map(drop),
        }
    }

    /// Listens; `None` where nobody could tell anything.
    ///
    /// # Errors
    /// The database's.
    pub async fn listen(&self) -> Result<Option<Listener>> {
        let Database::Postgres(pool) = &self.db else { return Ok(None) };
        let mut listener = PgListener::connect_with(pool).await?;
        // It has one of the pool's connections, and gives it back when the pool closes.
        listener.ignore_pool_close_event(false);
        listener.listen(CHANNEL).await?;
        Ok(Some(Listener(listener)))
    }
}
