//! A PostgreSQL database of its own for each test.

use crate::truth::Db;
use std::sync::atomic::{AtomicU32, Ordering};

/// Dropped when it is dropped.
pub struct Postgres {
    server: String,
    name: String,
}

impl Postgres {
    /// Makes a database on the server that `tests/postgres` started.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let server = std::env::var("ADE_TEST_DATABASE_URL")
            .expect("this test needs PostgreSQL: tests/postgres run cargo test --test recovery");
        let name = format!("ade_recovery_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Db::at(&server).execute(&format!("CREATE DATABASE {name}"));
        Self { server, name }
    }

    pub fn url(&self) -> String {
        let (base, _) = self.server.rsplit_once('/').expect("a URL with a database");
        format!("{base}/{}", self.name)
    }

    /// `host:port` of the server.
    pub fn address(&self) -> String {
        let rest = self.server.split_once("://").expect("a URL").1;
        let authority = rest.split('/').next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default().to_owned()
    }

    /// The URL by way of a proxy.
    pub fn url_by(&self, proxy: &crate::proxy::Proxy) -> String {
        self.url().replace(&self.address(), &proxy.address)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // In a thread, so that a failure here does not end a test that is failing already.
        std::thread::spawn(move || Db::at(&server).execute(&format!("DROP DATABASE {name} WITH (FORCE)"))).join().ok();
    }
}
