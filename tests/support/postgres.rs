//! PostgreSQL databases for tests, on the server that `tests/postgres` started.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::atomic::{AtomicU64, Ordering};

/// A database of its own, empty at first; dropping it drops the database, whoever uses it.
pub struct EmptyDatabase {
    server: String,
    name: String,
    url: String,
}

impl EmptyDatabase {
    /// Makes one.
    ///
    /// # Panics
    /// When no server was started.
    pub fn create() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let server = std::env::var("ADE_TEST_DATABASE_URL").unwrap_or_else(|_| {
            panic!("ADE_TEST_DATABASE_URL is not set: run `tests/postgres run cargo test …`, which starts a PostgreSQL for the tests")
        });
        let name = format!("ade_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        execute(&server, format!("CREATE DATABASE {name}"))
            .expect("the server of ADE_TEST_DATABASE_URL makes a database");
        let (base, options) = server.split_once('?').map_or((server.as_str(), None), |(base, rest)| (base, Some(rest)));
        let (host, _) = base.rsplit_once('/').expect("a URL with a database");
        let url = options.map_or(format!("{host}/{name}"), |options| format!("{host}/{name}?{options}"));
        Self { server, name, url }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port` of the server.
    pub fn address(&self) -> &str {
        let rest = self.server.split_once("://").expect("a URL").1;
        let authority = rest.split('/').next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    }

    /// Its URL by way of another `host:port`.
    pub fn url_at(&self, address: &str) -> String {
        self.url.replace(self.address(), address)
    }
}

impl Drop for EmptyDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // In a thread of its own: this may be dropped where a runtime is, and must not end a test that is failing already.
        let drop = move || execute(&server, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).ok();
        std::thread::spawn(drop).join().ok();
    }
}

fn execute(server: &str, sql: String) -> Result<(), sqlx::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(server).await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        connection.close().await
    })
}
