//! What can go wrong with the database, in the few kinds that callers act on.

/// The database did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be reached, or is too busy: trying again later may help.
    #[error("the database cannot be used now: {0}")]
    Unavailable(String),
    /// The database's disk is full.
    #[error("the database's disk is full: {0}")]
    Full(String),
    /// A value that must be unique exists.
    #[error("the value exists already ({0})")]
    Exists(String),
    /// The database was made by a newer program.
    #[error(
        "the database has migration {found}, this program knows up to {known}: it was used by a newer ade; run that one, or restore a backup made before the upgrade"
    )]
    TooNew {
        /// A migration that the database has and this program does not.
        found: i64,
        /// Newest migration in this program.
        known: i64,
    },
    /// The URL is not one of a supported database.
    #[error("the database URL {0} is not usable: give sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME")]
    BadUrl(String),
    /// A bug, or a database that somebody else changed.
    #[error("the database answered with something unexpected: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing the request.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        match &error {
            Error::Database(database) => {
                let text = database.to_string();
                if database.is_unique_violation() {
                    return Self::Exists(text);
                }
                let code = database.code().unwrap_or_default();
                // SQLite's primary result code is the low byte of the extended one (https://sqlite.org/rescode.html).
                let primary = code.parse::<u32>().map(|code| code & 0xff);
                match (code.as_ref(), primary) {
                    // PostgreSQL's classes: 53 insufficient resources, 57 operator intervention, 08 connection, 40 rollback
                    // (https://www.postgresql.org/docs/current/errcodes-appendix.html).
                    ("53100", _) => Self::Full(text),
                    (code, _)
                        if code.len() == 5
                            && ["53", "57", "08", "40", "25"].iter().any(|class| code.starts_with(class)) =>
                    {
                        Self::Unavailable(text)
                    }
                    // SQLITE_FULL; then BUSY, LOCKED, READONLY, IOERR, CANTOPEN.
                    (_, Ok(13)) => Self::Full(text),
                    (_, Ok(5 | 6 | 8 | 10 | 14)) => Self::Unavailable(text),
                    _ => Self::Internal(text),
                }
            }
            Error::Io(_)
            | Error::Tls(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed
            | Error::Protocol(_) => Self::Unavailable(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}
