//! A database that goes away, is full, or says no.

use crate::harness::{Kind, World, run};
use ade::store::{Store, StoreError};
use sqlx::Connection;

const TERMINATE: &str = "DO $$ BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'ade'; END $$";

on_both! {
    async fn a_closed_store_is_unavailable_and_says_so(world) {
        let other = world.another().await;
        other.close().await;
        let error = other.ping().await.expect_err("closed");
        assert!(matches!(error, StoreError::Unavailable(_)) && error.is_transient(), "{error:?}");
        world.store.ping().await.expect("another handle is not");
    }
}

/// What PostgreSQL answers when it is made to fail with this code.
async fn raised(world: &World, code: &str) -> StoreError {
    let raise = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = 'made up'; END $$");
    world.try_sql(&raise).await.expect_err("raised").into()
}

#[test]
fn a_server_that_drops_every_connection_is_found_again_by_the_next_call() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            let tenant = world.tenant("acme").await;
            // Several connections in the pool, all of them gone.
            let pings = (0..8).map(|_| world.store.ping());
            futures_util::future::join_all(pings).await;
            world.sql(TERMINATE).await;
            if let Err(error) = world.store.ping().await {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
            }
            world.submit(tenant.submission()).await;
        })
    });
}

#[test]
fn connections_that_die_under_load_lose_nothing_that_was_accepted() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            let tenant = world.tenant("acme").await;
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let (world, tenant) = (std::sync::Arc::clone(&world), tenant.clone());
                    tokio::spawn(async move {
                        let (mut accepted, mut failed) = (Vec::new(), 0);
                        for _ in 0..40 {
                            match world.store.submit(&[tenant.submission()], &world.defaults).await {
                                Ok((answers, _)) => accepted
                                    .extend(answers.into_iter().map(|answer| answer.expect("no bound is near").job)),
                                Err(StoreError::Unavailable(_)) => failed += 1,
                                Err(other) => panic!("an outage is transient, not {other:?}"),
                            }
                        }
                        (accepted, failed)
                    })
                })
                .collect();
            for _ in 0..4 {
                tokio::time::sleep(std::time::Duration::from_millis(60)).await;
                world.sql(TERMINATE).await;
            }
            let mut unanswered = 0;
            let mut accepted = 0;
            for task in tasks {
                let (jobs, failed) = task.await.expect("no panic");
                unanswered += failed;
                accepted += jobs.len();
                for job in jobs {
                    world.job(&job).await;
                }
            }
            let stored = usize::try_from(world.count("SELECT count(*) FROM jobs").await).expect("a count");
            assert!(stored >= accepted && stored <= accepted + unanswered, "{accepted} + {unanswered}: {stored}");
        })
    });
}

#[test]
fn the_codes_of_postgresql_become_the_kinds_that_callers_act_on() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            for code in ["53300", "57P01", "57P03", "57014", "08006", "40001", "40P01", "25006"] {
                let error = raised(&world, code).await;
                assert!(matches!(error, StoreError::Unavailable(_)), "{code}: {error:?}");
            }
            assert!(matches!(raised(&world, "53100").await, StoreError::Full(_)));
            assert!(matches!(raised(&world, "23505").await, StoreError::Exists(_)));
            for code in ["42P01", "22P02", "23503", "XX000"] {
                let error = raised(&world, code).await;
                assert!(matches!(error, StoreError::Internal(_)) && !error.is_transient(), "{code}: {error:?}");
            }
        })
    });
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let error = runtime.block_on(Store::open("postgres://ade@127.0.0.1:1/ade")).expect_err("nobody listens");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let error = runtime.block_on(Store::open("sqlite:/nonexistent/folder/ade.db")).expect_err("no folder");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[test]
fn what_sqlite_cannot_do_becomes_the_kinds_that_callers_act_on() {
    run(Kind::Sqlite, |world| {
        Box::pin(async move {
            let path = world.folder().join("full.db");
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
            let options = options.busy_timeout(std::time::Duration::from_millis(1));
            let mut small = sqlx::SqliteConnection::connect_with(&options).await.expect("a file");
            sqlx::raw_sql("CREATE TABLE t (a TEXT UNIQUE, b BLOB); PRAGMA max_page_count = 5")
                .execute(&mut small)
                .await
                .expect("a table");
            let full = sqlx::raw_sql("INSERT INTO t VALUES ('a', zeroblob(100000))").execute(&mut small).await;
            let full = StoreError::from(full.expect_err("five pages are full"));
            assert!(matches!(full, StoreError::Full(_)) && full.is_transient(), "{full:?}");
            sqlx::raw_sql("INSERT INTO t VALUES ('a', NULL)").execute(&mut small).await.expect("a row");
            let again = sqlx::raw_sql("INSERT INTO t VALUES ('a', NULL)").execute(&mut small).await;
            let again = StoreError::from(again.expect_err("unique"));
            assert!(matches!(again, StoreError::Exists(_)), "{again:?}");
            let mut other = sqlx::SqliteConnection::connect_with(&options).await.expect("the same file");
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut small).await.expect("the lock");
            let busy = sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await;
            let busy = StoreError::from(busy.expect_err("locked"));
            assert!(matches!(busy, StoreError::Unavailable(_)), "{busy:?}");
        })
    });
}
