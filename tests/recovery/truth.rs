//! What must be true of an installation at rest, whatever happened to it before.

use crate::api::{Api, eventually, is_final};
use crate::site::{Site, containers};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The database, opened for a moment at a time.
pub struct Db {
    url: String,
}

impl Db {
    pub fn of(site: &Site) -> Self {
        let place = site.args.iter().position(|arg| arg == "--database-url");
        Self {
            url: place.map_or_else(
                || format!("sqlite://{}", site.data().join("ade.db").display()),
                |place| site.args[place + 1].clone(),
            ),
        }
    }

    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    fn block<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// Runs a statement.
    #[track_caller]
    pub fn execute(&self, sql: &str) -> u64 {
        let sql = AssertSqlSafe(sql.to_owned());
        Self::block(async {
            if self.url.starts_with("sqlite") {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.unwrap().rows_affected()
            } else {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected()
            }
        })
    }

    /// The first column as text, cast by the database.
    #[track_caller]
    pub fn column(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        Self::block(async {
            if self.url.starts_with("sqlite") {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| row.get::<String, _>(0)).collect()
            } else {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| row.get::<String, _>(0)).collect()
            }
        })
    }

    /// A transaction that holds what this statement has changed or locked. On PostgreSQL.
    #[track_caller]
    pub fn hold(&self, sql: &str) -> Held {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
            connection
        });
        Held { runtime, connection }
    }

    /// Waits until a statement like this waits for a lock. On PostgreSQL.
    #[track_caller]
    pub fn until_blocked(&self, like: &str) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
             AND query LIKE '{like}'"
        );
        eventually(like, 10, || self.number(&sql) > 0);
    }

    /// Asks as fast as it can until `is` the answer wanted, and gives that.
    pub fn watch(&self, sql: &str, is: impl Fn(&str) -> bool) -> String {
        Self::block(async {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            loop {
                let answer: String =
                    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap();
                if is(&answer) {
                    return answer;
                }
            }
        })
    }

    #[track_caller]
    pub fn text(&self, sql: &str) -> String {
        self.column(sql).remove(0)
    }

    /// A single number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        self.text(&format!("SELECT CAST(({sql}) AS TEXT)")).parse().unwrap()
    }

    /// Counters say what a count says.
    #[track_caller]
    pub fn assert_counters(&self) {
        for (what, sql) in [
            (
                "instance",
                "SELECT count(*) FROM instance WHERE queued <> (SELECT count(*) FROM jobs WHERE state = 'queued')",
            ),
            (
                "claims",
                "SELECT count(*) FROM instance WHERE claimed <> (SELECT COALESCE(sum(execution), 0) FROM jobs) \
                 OR claimed <> (SELECT COALESCE(sum(claimed), 0) FROM workspaces)",
            ),
            (
                "workspaces",
                "SELECT count(*) FROM workspaces w WHERE queued <> (SELECT count(*) FROM jobs WHERE workspace_id = w.id \
                 AND state = 'queued') OR running <> (SELECT count(*) FROM jobs WHERE workspace_id = w.id \
                 AND state IN ('running', 'cancelling'))",
            ),
            (
                "configs",
                "SELECT count(*) FROM configs c WHERE queued <> (SELECT count(*) FROM jobs WHERE config_id = c.id \
                 AND state = 'queued') OR running <> (SELECT count(*) FROM jobs WHERE config_id = c.id \
                 AND state IN ('running', 'cancelling'))",
            ),
        ] {
            assert_eq!(self.number(sql), 0, "the counters of {what} are wrong");
        }
    }
}

/// A transaction that others wait for.
pub struct Held {
    runtime: tokio::runtime::Runtime,
    connection: sqlx::PgConnection,
}

impl Held {
    pub fn commit(mut self) {
        self.runtime.block_on(sqlx::raw_sql("COMMIT").execute(&mut self.connection)).unwrap();
    }
}

/// How a job that was accepted has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    Succeed,
    Fail,
    /// A cancel was answered with 202.
    Cancel,
    /// A cancel was sent whose answer did not come.
    Either,
}

/// Waits for the end of a job and checks all that must be true of it. Gives its record.
#[track_caller]
pub fn assert_job(api: &Api, job: &str, must: Must) -> Value {
    let record = api.ended(job);
    let status = record["status"].as_str().unwrap();
    let story = || format!("{record:#}\n{:#?}", api.events(job).iter().map(Value::to_string).collect::<Vec<_>>());
    match must {
        Must::Succeed => assert_eq!(status, "succeeded", "{}", story()),
        Must::Fail => {
            assert_eq!(status, "failed", "{}", story());
            assert_eq!(record["error"]["kind"], "hook_failed", "{}", story());
        }
        Must::Cancel => assert_eq!(status, "cancelled", "{}", story()),
        Must::Either => assert!(is_final(status), "{}", story()),
    }
    assert_events(&api.events(job), &record);
    assert_outputs(api, job, &record);
    record
}

/// Numbered from 1 without a gap, one end, executions that count up, and a `requeue` between each and the next.
#[track_caller]
pub fn assert_events(events: &[Value], record: &Value) {
    let story = || format!("{record:#}\n{:#?}", events.iter().map(Value::to_string).collect::<Vec<_>>());
    for (place, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], place + 1, "a gap in the events\n{}", story());
    }
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(named("enqueue"), 1, "{}", story());
    assert_eq!(named("exit"), 1, "one end\n{}", story());
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["state"]), (&Value::from("exit"), &record["status"]), "{}", story());
    let executions: Vec<u64> = events.iter().map(|event| event["execution"].as_u64().unwrap()).collect();
    assert!(executions.is_sorted(), "executions count up\n{}", story());
    assert_eq!(executions.last(), record["execution"].as_u64().as_ref(), "{}", story());
    for execution in 1..record["execution"].as_u64().unwrap() {
        let last = events.iter().rfind(|event| event["execution"] == execution);
        let last = last.unwrap_or_else(|| panic!("execution {execution} left no event\n{}", story()));
        assert_eq!(last["event"], "requeue", "execution {execution} was not re-queued\n{}", story());
        assert!(last["detail"]["reason"].is_string(), "{}", story());
    }
}

/// All files are there, whole, and none beside them.
#[track_caller]
pub fn assert_outputs(api: &Api, job: &str, record: &Value) {
    let outputs = api.get(&format!("/api/v1/workspaces/default/jobs/{job}/outputs")).expect(200).json();
    let mut names = BTreeSet::new();
    for file in outputs["items"].as_array().unwrap() {
        let answer = api.get(file["uri"].as_str().unwrap()).expect(200);
        names.insert(file["name"].as_str().unwrap().to_owned());
        if let Some(sha256) = file["sha256"].as_str() {
            assert_eq!(answer.body.len() as u64, file["bytes"], "{file}");
            assert_eq!(format!("{:x}", Sha256::digest(&answer.body)), sha256, "{file}");
        }
    }
    let succeeded = record["status"] == "succeeded";
    assert_eq!(names.contains("normalized.xlsx"), succeeded, "{outputs:#}");
    if succeeded {
        assert!(names.contains("artifact.json") && names.contains("run-request.json"), "{outputs:#}");
        let request = api.get(record["run_request_uri"].as_str().unwrap()).expect(200).json();
        assert_eq!(request["execution"], record["execution"], "the files are those of the last execution");
    }
}

/// Nothing is left of what has ended: no container, no scratch file, no half a blob, no file that nobody lists; counters are
/// exact. For an installation with nothing waiting or running.
#[track_caller]
pub fn assert_at_rest(site: &Site) {
    let db = Db::of(site);
    let blobs = blob_folder(site);
    let instance = site.instance();
    eventually("the logs are stored", 20, || {
        db.number("SELECT count(*) FROM jobs WHERE events_stored = 0 AND completed_at IS NOT NULL") == 0
    });
    assert_eq!(db.number("SELECT count(*) FROM job_events"), 0, "no event is left in the database");
    db.assert_counters();
    let mut left = Vec::new();
    let mut last = String::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::time::Instant::now() < deadline {
        left = containers("dev.ade.instance", &instance);
        let mut scratch = files(&site.data().join("scratch"));
        scratch.retain(|file| file != "probe");
        last = format!("{scratch:?} {:?}", strays(&db, &blobs));
        if left.is_empty() && last == "[] []" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("left behind: containers {left:?}, files {last}");
}

pub fn blob_folder(site: &Site) -> PathBuf {
    let place = site.args.iter().position(|arg| arg == "--blob-url");
    place.map_or_else(|| site.data().join("blobs"), |place| PathBuf::from(&site.args[place + 1]))
}

/// Files of the storage that no record lists; probes of this moment are none.
fn strays(db: &Db, blobs: &Path) -> Vec<String> {
    let mut known: BTreeMap<String, ()> = BTreeMap::new();
    let mut know = |path: String| known.insert(path, ());
    for line in db.column("SELECT workspace_id || '/documents/' || id FROM documents WHERE deleted_at IS NULL") {
        know(line);
    }
    for line in db.column("SELECT DISTINCT workspace_id || '/packages/' || package_sha256 FROM config_versions") {
        know(line);
    }
    let sql = "SELECT workspace_id || '/jobs/' || id || '/' || execution || ' ' || COALESCE(result, '{}') FROM jobs";
    for line in db.column(sql) {
        let (folder, result) = line.split_once(' ').unwrap();
        know(format!("{folder}/events.ndjson"));
        let result: Value = serde_json::from_str(result).unwrap();
        for file in result["files"].as_array().into_iter().flatten() {
            know(format!("{folder}/{}", file["name"].as_str().unwrap()));
        }
    }
    let there = files(blobs);
    there.into_iter().filter(|path| !known.contains_key(path) && !path.starts_with("probe/")).collect()
}

/// Every file under a folder, relative to it.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
