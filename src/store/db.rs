//! One way to speak SQL to both databases.
//!
//! The statements are written once, in the SQL that SQLite and PostgreSQL share, with `$1` for parameters. Integers are `i64`,
//! everything else is text; where the two differ, [`Tx::pick`] names both spellings side by side.

use super::StoreError;
use sqlx::pool::{Pool, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqlSafeStr, Transaction};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// How long a call waits for a connection before the database counts as gone.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a statement waits for its answer before the database counts as gone: a machine that vanished closes no connection.
const ANSWER: Duration = Duration::from_secs(10);
const SQLITE_READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;
/// Every statement that the queue waits for has an index. Until a table was first analyzed, the planner guesses that its values
/// repeat, and would read all of `jobs` for each batch of submissions. What it must read whole it then thinks so dear that it
/// compiles it, which takes longer than all else. And a process that is stopped in the middle of a transaction must not stop all
/// others, which wait for its locks. Not startup options: connection poolers refuse those.
const SESSION: &str = "SET enable_seqscan = off; SET jit = off; SET idle_in_transaction_session_timeout = '10s'";

/// A database, with its connections.
#[derive(Debug, Clone)]
pub enum Database {
    /// The embedded default: one writer, some readers.
    Sqlite {
        /// The one connection that writes: SQLite has one writer at a time anyway, and waiting here is fair and cheap.
        writer: Pool<Sqlite>,
        /// Read-only connections, which see the last commit (WAL).
        readers: Pool<Sqlite>,
    },
    /// For more than one process.
    Postgres(Pool<Postgres>),
}

impl Database {
    /// Connects and brings the schema up to date.
    pub(super) async fn open(url: &str) -> Result<Self> {
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url).map_err(|_| StoreError::BadUrl(masked(url)))?;
            let pool = PoolOptions::<Postgres>::new()
                .max_connections(POSTGRES_CONNECTIONS)
                .acquire_timeout(ACQUIRE)
                .after_connect(|connection, _| {
                    Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
                })
                // What the pool itself does then, it does without a bound, and a connection that answers no more would keep its place.
                .after_release(|connection, _| {
                    Box::pin(async move {
                        match tokio::time::timeout(ACQUIRE, connection.ping()).await {
                            Ok(answer) => answer.map(|()| true),
                            Err(_) => Err(sqlx::Error::PoolTimedOut),
                        }
                    })
                })
                .connect_with(options.application_name("ade"))
                .await?;
            migrate(&sqlx::migrate!("migrations/postgres"), &pool).await?;
            return Ok(Self::Postgres(pool));
        }
        if !url.starts_with("sqlite:") {
            return Err(StoreError::BadUrl(masked(url)));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| StoreError::BadUrl(masked(url)))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An accepted job survives a power cut: every commit is on the disk before it is answered.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(ACQUIRE)
            .pragma("cache_size", "-16384")
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", "4000");
        let writer = PoolOptions::<Sqlite>::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            // When a disk is full, SQLite rolls back by itself; sqlx's own rollback then fails, and it counts the connection as in
            // a transaction for ever.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await?;
        migrate(&sqlx::migrate!("migrations/sqlite"), &writer).await?;
        let readers = PoolOptions::<Sqlite>::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(ACQUIRE)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self::Sqlite { writer, readers })
    }

    /// A transaction that may write.
    pub(super) async fn begin(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite { writer, .. } => {
                Tx::Sqlite(writer.begin_with("PRAGMA synchronous = FULL; BEGIN IMMEDIATE").await?)
            }
            Self::Postgres(pool) => Tx::Postgres(answered(pool.begin()).await?),
        })
    }

    /// A transaction whose writes may be undone by a power cut, up to the next commit of another: for what a machine that
    /// lost its power does not miss, since the jobs that ran on it begin again. The embedded database does not wait for the
    /// disk then (<https://www.sqlite.org/pragma.html#pragma_synchronous>, NORMAL in WAL mode). A PostgreSQL server may fall
    /// without its clients, so there it is like any other.
    pub(super) async fn begin_of_the_moment(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite { writer, .. } => {
                Tx::Sqlite(writer.begin_with("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE").await?)
            }
            Self::Postgres(_) => self.begin().await?,
        })
    }

    /// A single statement that reads, without a transaction around it.
    pub(super) async fn fetch(&self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Vec<Row>> {
        match self {
            Self::Sqlite { readers, .. } => sqlite_rows(sql, args, readers).await,
            Self::Postgres(pool) => answered(postgres_rows(sql, args, pool)).await,
        }
    }

    /// As [`fetch`](Self::fetch), the first row.
    pub(super) async fn fetch_one(&self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Option<Row>> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// A single statement that writes, in a transaction of its own.
    pub(super) async fn execute(&self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<u64> {
        let mut tx = self.begin().await?;
        let changed = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(changed)
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

async fn migrate<'a, A>(migrator: &sqlx::migrate::Migrator, pool: A) -> Result<()>
where
    A: sqlx::Acquire<'a>,
    <A::Connection as std::ops::Deref>::Target: sqlx::migrate::Migrate,
{
    use sqlx::migrate::MigrateError;
    migrator.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => StoreError::TooNew {
            found,
            known: migrator.iter().map(|migration| migration.version).max().unwrap_or_default(),
        },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Internal(other.to_string()),
    })
}

/// Waits for an answer of a server, and not for ever.
async fn answered<T, E: Into<StoreError>>(work: impl Future<Output = std::result::Result<T, E>>) -> Result<T> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(StoreError::Unavailable(format!("it did not answer within {} s", ANSWER.as_secs()))),
    }
}

/// The URL without its password.
pub(super) fn masked(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => match url[scheme + 3..at].find(':') {
            Some(colon) => format!("{}:***{}", &url[..scheme + 3 + colon], &url[at..]),
            None => url.to_owned(),
        },
        _ => url.to_owned(),
    }
}

/// A transaction on either database; rolled back when it is dropped.
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Runs a statement; the number of rows that it changed.
    pub(super) async fn execute(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<u64> {
        Ok(match self {
            Self::Sqlite(tx) => bind_sqlite(sql, args).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => answered(bind_postgres(sql, args).execute(&mut **tx)).await?.rows_affected(),
        })
    }

    /// Runs a statement that gives rows.
    pub(super) async fn fetch(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Vec<Row>> {
        match self {
            Self::Sqlite(tx) => sqlite_rows(sql, args, &mut **tx).await,
            Self::Postgres(tx) => answered(postgres_rows(sql, args, &mut **tx)).await,
        }
    }

    /// Runs a statement that gives a row, or none.
    pub(super) async fn fetch_one(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Option<Row>> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// Inserts rows, or changes some by a list of values, many to a statement. `head` is everything up to and including
    /// `VALUES`, `tail` what follows the values.
    pub(super) async fn insert(&mut self, head: &str, tail: &str, rows: Vec<Vec<Arg>>) -> Result<()> {
        let mut rows = rows.into_iter().peekable();
        let Some(width) = rows.peek().map(Vec::len) else { return Ok(()) };
        let mut left = rows.len();
        while left > 0 {
            // Few sizes, so that few statements are prepared; 16 rows of 22 columns are far under both databases' bounds.
            let size = [16, 4, 1].into_iter().find(|size| *size <= left).unwrap_or(1);
            let args: Vec<Arg> = rows.by_ref().take(size).flatten().collect();
            let sql = format!("{head} {} {tail}", places(size, width));
            self.execute(AssertSqlSafe(sql), args).await?;
            left -= size;
        }
        Ok(())
    }

    /// The spelling of this database.
    pub(super) const fn pick<T: Copy>(&self, sqlite: T, postgres: T) -> T {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(_) => postgres,
        }
    }

    pub(super) async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => answered(tx.commit()).await?,
        }
        Ok(())
    }
}

/// `($1,$2),($3,$4)`.
fn places(rows: usize, width: usize) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=width).map(|column| format!("${}", row * width + column)).collect();
        format!("({})", places.join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}

/// `$3,$4,$5`: `count` parameters from number `from`.
pub(super) fn list(from: usize, count: usize) -> String {
    (from..from + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(",")
}

/// A parameter.
#[derive(Debug, Clone)]
pub(super) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}

impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}

impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<String>> for Arg {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

macro_rules! id_args {
    ($($name:ident),+) => { $(
        impl From<&crate::ids::$name> for Arg {
            fn from(id: &crate::ids::$name) -> Self {
                Self::Text(Some(id.as_str().to_owned()))
            }
        }

        impl From<Option<&crate::ids::$name>> for Arg {
            fn from(id: Option<&crate::ids::$name>) -> Self {
                Self::Text(id.map(|id| id.as_str().to_owned()))
            }
        }
    )+ };
}

id_args!(JobId, WorkspaceId, DocumentId, ConfigId, VersionId, DraftId, DraftFileId, KeyId, NodeId, InstanceId, AuditId);

/// `args![a, b]`: parameters from anything that can be one.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::Arg::from($value)),*] };
}
pub(super) use args;

fn bind_sqlite(
    sql: impl SqlSafeStr,
    args: Vec<Arg>,
) -> sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments> {
    args.into_iter().fold(sqlx::query(sql), |query, arg| match arg {
        Arg::Int(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
    })
}

fn bind_postgres(
    sql: impl SqlSafeStr,
    args: Vec<Arg>,
) -> sqlx::query::Query<'static, Postgres, sqlx::postgres::PgArguments> {
    args.into_iter().fold(sqlx::query(sql), |query, arg| match arg {
        Arg::Int(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
    })
}

async fn sqlite_rows<'e>(
    sql: impl SqlSafeStr,
    args: Vec<Arg>,
    on: impl sqlx::Executor<'e, Database = Sqlite>,
) -> Result<Vec<Row>> {
    Ok(bind_sqlite(sql, args).fetch_all(on).await?.into_iter().map(Row::Sqlite).collect())
}

async fn postgres_rows<'e>(
    sql: impl SqlSafeStr,
    args: Vec<Arg>,
    on: impl sqlx::Executor<'e, Database = Postgres>,
) -> Result<Vec<Row>> {
    Ok(bind_postgres(sql, args).fetch_all(on).await?.into_iter().map(Row::Postgres).collect())
}

/// A row of either database; columns by name.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! get {
    ($self:expr, $name:expr) => {
        match $self {
            Row::Sqlite(row) => row.try_get($name)?,
            Row::Postgres(row) => row.try_get($name)?,
        }
    };
}

impl Row {
    pub(super) fn int(&self, name: &str) -> Result<i64> {
        Ok(get!(self, name))
    }

    pub(super) fn opt_int(&self, name: &str) -> Result<Option<i64>> {
        Ok(get!(self, name))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.int(name)? != 0)
    }

    pub(super) fn text(&self, name: &str) -> Result<String> {
        Ok(get!(self, name))
    }

    pub(super) fn opt_text(&self, name: &str) -> Result<Option<String>> {
        Ok(get!(self, name))
    }

    /// A column that holds an id, or another text with a parser.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|error: T::Err| StoreError::Internal(format!("column {name} holds {text:?}: {error}")))
    }

    pub(super) fn opt_parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>> {
        match self.opt_text(name)? {
            None => Ok(None),
            Some(_) => self.parsed(name).map(Some),
        }
    }

    /// A column of JSON text.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        serde_json::from_str(&text).map_err(|error| StoreError::Internal(format!("column {name}: {error}")))
    }

    pub(super) fn opt_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.opt_text(name)? {
            None => Ok(None),
            Some(_) => self.json(name).map(Some),
        }
    }
}

/// Milliseconds since the Unix epoch, by this machine's clock.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_masked() {
        assert_eq!(masked("postgres://ade:s3@cret@db:5432/ade"), "postgres://ade:***@db:5432/ade");
        assert_eq!(masked("postgres://ade@db/ade"), "postgres://ade@db/ade");
        assert_eq!(masked("sqlite:/var/lib/ade/ade.db"), "sqlite:/var/lib/ade/ade.db");
    }

    #[test]
    fn places_count_through() {
        assert_eq!(places(2, 3), "($1,$2,$3),($4,$5,$6)");
        assert_eq!(list(3, 2), "$3,$4");
    }
}
