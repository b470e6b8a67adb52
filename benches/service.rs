//! The benchmarks of the service, as ratios from one run: `tests/postgres run --durable cargo bench --bench service [-- --smoke]`
//!
//! A real `ade serve` over HTTP: submissions from 64 clients, then jobs from submission to end against `xargs -P` over `docker run` of
//! the same image, what a noisy workspace costs a quiet one, reading configs of a workspace with 10,000 versions, and activations
//! against starts of jobs. On SQLite in a folder of `target/`, and submissions and versions on PostgreSQL too when
//! `ADE_TEST_DATABASE_URL` is set. `--smoke` makes everything small, to see that it is not broken; `--only=versions,activations`
//! picks from `submissions`, `jobs`, `noise`, `versions` and `activations`.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const CLIENTS: usize = 64;
/// Containers at once, here and for xargs.
const AT_ONCE: usize = 2;

/// A server of this bench's own, gone when dropped.
struct Server {
    child: Child,
    folder: PathBuf,
    address: String,
    key: String,
}

impl Server {
    async fn start(name: &str, database: Option<&str>) -> Result<Self> {
        Self::start_with(name, database, &[]).await
    }

    async fn start_with(name: &str, database: Option<&str>, args: &[&str]) -> Result<Self> {
        let folder =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("target/bench-{name}-{}", std::process::id()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ade"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--rate-limit", "0", "--log", "warn"]);
        command.args(["--queue-size", "10000000", "--workspace-queue-size", "10000000"]);
        command.args(["--max-concurrency", &AT_ONCE.to_string(), "--data-dir"]).arg(&folder);
        command.args(args);
        if let Some(url) = database {
            command.args(["--database-url", url]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut server = Self { child, folder, address: String::new(), key: String::new() };
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let read = |name: &str| std::fs::read_to_string(server.folder.join(name)).unwrap_or_default();
            server.key = read("admin-key").trim().to_owned();
            server.address = read("address").trim().trim_start_matches("http://").to_owned();
            if !server.address.is_empty() && server.call("GET", "/readyz", None).await.is_ok() {
                return Ok(server);
            }
            if Instant::now() > deadline {
                return Err("the server did not become ready".into());
            }
        }
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut client = Client::connect(self).await?;
        let body = body.map(Value::to_string).unwrap_or_default();
        client.call(method, path, "application/json", body.as_bytes()).await
    }

    /// A workspace's config and document, and the body of a submission of both.
    async fn tenant(&self, slug: &str) -> Result<(String, String, String)> {
        if slug != "default" {
            self.call("POST", "/api/v1/workspaces", Some(&json!({"slug": slug}))).await?;
        }
        let base = format!("/api/v1/workspaces/{slug}");
        let mut client = Client::connect(self).await?;
        let document = client
            .call("POST", &format!("{base}/documents?filename=names.csv"), "application/octet-stream", b"Name\nAda\n")
            .await?;
        let config =
            client.call("POST", &format!("{base}/configs"), FORM, &form(Some("bench"), &package("1.0.0")?)).await?;
        let version = config["latest_version"]["config_version_id"].as_str().ok_or("no version")?.to_owned();
        let document = document["document_id"].as_str().ok_or("no document")?.to_owned();
        Ok((format!("{base}/jobs"), version, document))
    }

    fn resident_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, twice: jobs that still run are dropped with their containers.
        for _ in 0..2 {
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().ok();
            std::thread::sleep(Duration::from_millis(300));
        }
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

const FORM: &str = "multipart/form-data; boundary=bench-boundary";

/// A form with a package, and with a slug where it is to be a new config.
fn form(slug: Option<&str>, zip: &[u8]) -> Vec<u8> {
    let part = "--bench-boundary\r\nContent-Disposition: form-data; name=";
    let slug = slug.map(|slug| format!("{part}\"slug\"\r\n\r\n{slug}\r\n")).unwrap_or_default();
    let head = format!("{slug}{part}\"package\"; filename=\"p.zip\"\r\n\r\n");
    [head.as_bytes(), zip, b"\r\n--bench-boundary--\r\n"].concat()
}

/// The least package there is, of a version.
fn package(version: &str) -> Result<Vec<u8>> {
    let manifest = json!({
        "config_script_api_version": "1",
        "info": {"schema": "ade.manifest/v1.0", "title": "Bench", "version": version},
        "columns": {"order": ["name"], "meta": {"name": {"label": "Name"}}},
    });
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("manifest.json"), manifest.to_string())?;
    let package = ade::packages::Package::open(folder.path(), &ade::packages::PackageCaps::default())?;
    let mut zip = Vec::new();
    package.write_canonical_zip(&mut zip)?;
    Ok(zip)
}

/// One kept connection; no more of HTTP than is needed, since the client shares the machine with what is measured.
struct Client {
    stream: TcpStream,
    key: String,
    read: Vec<u8>,
}

impl Client {
    async fn connect(server: &Server) -> Result<Self> {
        let stream = TcpStream::connect(&server.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, key: server.key.clone(), read: Vec::new() })
    }

    async fn call(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Value> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).await?;
        self.read.clear();
        let (start, length) = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                break (end + 4, length.unwrap_or(0_usize));
            }
            self.more().await?;
        };
        while self.read.len() < start + length {
            self.more().await?;
        }
        let (head, body) = (&self.read[..start], &self.read[start..start + length]);
        if head.get(9) != Some(&b'2') {
            return Err(format!("{method} {path}: {}", String::from_utf8_lossy(&self.read)).into());
        }
        Ok(serde_json::from_slice(body).unwrap_or_default())
    }

    async fn more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let place = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

fn line(name: &str, text: &str) {
    println!("{name:<44} {text}");
}

/// 64 clients submit `jobs` jobs to a paused queue.
async fn submissions(name: &str, database: Option<&str>, jobs: usize) -> Result<()> {
    let server = Server::start(name, database).await?;
    server.call("PUT", "/api/v1/system/queue", Some(&json!({"state": "paused"}))).await?;
    let (path, version, document) = server.tenant("default").await?;
    let each = jobs / CLIENTS;
    let started = Instant::now();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let (path, version, document) = (path.clone(), version.clone(), document.clone());
        let mut connection = Client::connect(&server).await?;
        clients.push(tokio::spawn(async move {
            let mut took = Vec::with_capacity(each);
            for number in 0..each {
                let hash = format!("{client}-{number}");
                let body = json!({"config_version_id": version, "document_ids": [document], "input_hash": hash});
                let before = Instant::now();
                connection.call("POST", &path, "application/json", body.to_string().as_bytes()).await?;
                took.push(before.elapsed().as_secs_f64() * 1000.0);
            }
            Ok::<_, Error>(took)
        }));
    }
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    let wall = started.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    let status = server.call("GET", "/api/v1/system/queue", None).await?;
    if status["queued"].as_u64() != Some(took.len() as u64) {
        return Err(format!("{} jobs were accepted and {} wait", took.len(), status["queued"]).into());
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = took.len() as f64 / wall;
    line(
        &format!("POST /jobs from {CLIENTS} clients, {name}"),
        &format!(
            "{rate:.0} jobs/s, p50 {:.1} ms, p99 {:.1} ms, server {} MB  wanted ≥ 2000, < 50 ms, < 150 MB",
            percentile(&took, 0.5),
            percentile(&took, 0.99),
            server.resident_mb()
        ),
    );
    Ok(())
}

async fn ended(server: &Server, path: &str, job: &str) -> Result<Value> {
    loop {
        let record = server.call("GET", &format!("{path}/{job}"), None).await?;
        match record["status"].as_str() {
            Some("succeeded") => return Ok(record),
            Some("failed" | "cancelled") => return Err(format!("a job ended otherwise: {record}").into()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Jobs from submission to end, against containers that do nothing.
async fn throughput(jobs: usize, pairs: usize) -> Result<()> {
    let server = Server::start("jobs", None).await?;
    let (path, version, document) = server.tenant("default").await?;
    let image = Command::new(env!("CARGO_BIN_EXE_ade")).args(["image", "show", "--json"]).output()?;
    let image: Value = serde_json::from_slice(&image.stdout)?;
    let image = image["tag"].as_str().ok_or("no image")?.to_owned();
    let (mut ratios, mut ours_all, mut theirs_all) = (Vec::new(), Vec::new(), Vec::new());
    let mut phases: Vec<Value> = Vec::new();
    for pair in 0..pairs {
        let started = Instant::now();
        let mut ids = Vec::new();
        for number in 0..jobs {
            let hash = format!("{pair}-{number}");
            let body = json!({"config_version_id": version, "document_ids": [document], "input_hash": hash});
            let job = server.call("POST", &path, Some(&body)).await?;
            ids.push(job["job_id"].as_str().ok_or("no id")?.to_owned());
        }
        for id in ids.iter().rev() {
            phases.push(ended(&server, &path, id).await?["timings"].clone());
        }
        let ours = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let command =
            format!("seq {jobs} | xargs -P {AT_ONCE} -I{{}} docker run --rm --network none {image} python3 -c pass");
        if !Command::new("sh").args(["-c", &command]).status()?.success() {
            return Err("xargs over docker run failed".into());
        }
        let theirs = started.elapsed().as_secs_f64();
        ratios.push(theirs / ours);
        ours_all.push(ours);
        theirs_all.push(theirs);
    }
    for list in [&mut ratios, &mut ours_all, &mut theirs_all] {
        list.sort_by(f64::total_cmp);
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = |seconds: f64| jobs as f64 / seconds;
    line("jobs, submission to end", &format!("{:.2} jobs/s, {AT_ONCE} at once", rate(percentile(&ours_all, 0.5))));
    line(
        "xargs -P docker run IMAGE python3 -c pass",
        &format!("{:.2} containers/s, {AT_ONCE} at once", rate(percentile(&theirs_all, 0.5))),
    );
    line(
        "ratio (median of pairs; min–max)",
        &format!(
            "{:.2}  ({:.2}–{:.2})  wanted ≥ 1",
            percentile(&ratios, 0.5),
            ratios.first().copied().unwrap_or_default(),
            ratios.last().copied().unwrap_or_default()
        ),
    );
    for phase in ["queue_ms", "create_ms", "start_ms", "run_ms", "collect_ms", "total_ms"] {
        let mut values: Vec<f64> = phases.iter().filter_map(|timings| timings[phase].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        line(
            &format!("  {}", phase.trim_end_matches("_ms")),
            &format!("p50 {:.0} ms, p99 {:.0} ms", percentile(&values, 0.5), percentile(&values, 0.99)),
        );
    }
    Ok(())
}

/// One job of a quiet workspace while a noisy one has a flood of them.
async fn noise(flood: usize) -> Result<()> {
    let server = Server::start("noise", None).await?;
    let (noisy, version, document) = server.tenant("noisy").await?;
    let (quiet, quiet_version, quiet_document) = server.tenant("quiet").await?;
    server.call("PUT", "/api/v1/system/queue", Some(&json!({"state": "paused"}))).await?;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let (path, version, document) = (noisy.clone(), version.clone(), document.clone());
        let mut connection = Client::connect(&server).await?;
        clients.push(tokio::spawn(async move {
            for number in 0..flood / CLIENTS {
                let hash = format!("{client}-{number}");
                let body = json!({"config_version_id": version, "document_ids": [document], "input_hash": hash});
                connection.call("POST", &path, "application/json", body.to_string().as_bytes()).await?;
            }
            Ok::<_, Error>(())
        }));
    }
    for client in clients {
        client.await??;
    }
    server.call("PUT", "/api/v1/system/queue", Some(&json!({"state": "on"}))).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut waits, mut runs) = (Vec::new(), Vec::new());
    for number in 0..10 {
        let body = json!({"config_version_id": quiet_version, "document_ids": [quiet_document], "input_hash": number.to_string()});
        let job = server.call("POST", &quiet, Some(&body)).await?;
        let record = ended(&server, &quiet, job["job_id"].as_str().ok_or("no id")?).await?;
        let ms = |key: &str| record["timings"][key].as_f64().unwrap_or_default();
        waits.push(ms("queue_ms"));
        runs.push(ms("total_ms") - ms("queue_ms"));
    }
    waits.sort_by(f64::total_cmp);
    runs.sort_by(f64::total_cmp);
    line(
        &format!("queue wait beside {flood} jobs of another"),
        &format!(
            "worst {:.0} ms; one job takes {:.0} ms  wanted ≤ 1 job",
            percentile(&waits, 1.0),
            percentile(&runs, 0.5)
        ),
    );
    Ok(())
}

/// Publishes `count` versions, half of them of one config and the rest of ten others.
async fn publish(server: &Server, count: usize) -> Result<String> {
    let base = "/api/v1/workspaces/default/configs";
    // By turns, so that each is a new version.
    let packages = [package("1.0.0")?, package("1.0.1")?];
    let mut publishers = Vec::new();
    for number in 0..=10 {
        let versions = if number == 0 { count / 2 } else { count / 20 };
        let mut client = Client::connect(server).await?;
        let packages = packages.clone();
        publishers.push(tokio::spawn(async move {
            let new = form(Some(&format!("config-{number}")), &packages[0]);
            let config = client.call("POST", base, FORM, &new).await?;
            let path = format!("{base}/{}", config["config_id"].as_str().ok_or("no config")?);
            let next = packages.map(|package| form(None, &package));
            for version in 1..versions {
                client.call("POST", &format!("{path}/versions"), FORM, &next[version % 2]).await?;
            }
            Ok::<_, Error>(path)
        }));
    }
    let mut paths = Vec::new();
    for publisher in publishers {
        paths.push(publisher.await??);
    }
    Ok(paths.swap_remove(0))
}

/// Reads of a workspace with `count` versions, one client after the other.
async fn versions(name: &str, database: Option<&str>, count: usize, times: usize) -> Result<()> {
    let server = Server::start(&format!("versions-{name}"), database).await?;
    let started = Instant::now();
    let config = publish(&server, count).await?;
    line(&format!("{count} versions published, {name}"), &format!("{:.1} s", started.elapsed().as_secs_f64()));
    let mut client = Client::connect(&server).await?;
    let list = format!("{config}/versions?limit=200");
    let (mut oldest, mut last, mut page) = (Value::Null, list.clone(), list.clone());
    let mut found = 0;
    loop {
        let answer = client.call("GET", &page, "", b"").await?;
        let items = answer["items"].as_array().ok_or("no page")?;
        found += items.len();
        oldest = items.last().cloned().unwrap_or(oldest);
        last.clone_from(&page);
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        page = format!("{list}&cursor={cursor}");
    }
    if found != count / 2 {
        return Err(format!("{found} versions are listed of {}", count / 2).into());
    }
    let oldest = oldest["config_version_id"].as_str().ok_or("no version")?;
    for (what, path) in [
        ("list the newest 200", list),
        ("list the oldest", last),
        ("get the oldest", format!("{config}/versions/{oldest}")),
        ("get the config", config.clone()),
        ("list the configs", "/api/v1/workspaces/default/configs".to_owned()),
        ("history", format!("{config}/history?limit=200")),
    ] {
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let before = Instant::now();
            client.call("GET", &path, "", b"").await?;
            took.push(before.elapsed().as_secs_f64() * 1000.0);
        }
        took.sort_by(f64::total_cmp);
        line(
            &format!("  {what}"),
            &format!(
                "p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms  wanted < 20 ms",
                percentile(&took, 0.5),
                percentile(&took, 0.99),
                percentile(&took, 1.0)
            ),
        );
    }
    Ok(())
}

/// Activations of a package without dependencies, each beside a job of it.
async fn activations(name: &str, args: &[&str], pairs: usize) -> Result<()> {
    let server = Server::start_with("activations", None, args).await?;
    let (jobs, version, document) = server.tenant("default").await?;
    let configs = "/api/v1/workspaces/default/configs";
    let config =
        server.call("GET", configs, None).await?["items"][0]["config_id"].as_str().ok_or("no config")?.to_owned();
    let path = format!("{configs}/{config}/versions");
    let mut client = Client::connect(&server).await?;
    let second = client.call("POST", &path, FORM, &form(None, &package("1.0.1")?)).await?;
    let second = second["config_version_id"].as_str().ok_or("no version")?.to_owned();
    let (mut activated, mut begun, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_start, mut to_whole) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Whatever is made ready ahead is ready again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = Instant::now();
        let which = if pair % 2 == 0 { &version } else { &second };
        client.call("POST", &format!("{path}/{which}/activate"), "", b"").await?;
        let activation = before.elapsed().as_secs_f64() * 1000.0;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let body =
            json!({"config_version_id": which, "document_ids": [document], "input_hash": format!("pair-{pair}")});
        let job = server.call("POST", &jobs, Some(&body)).await?;
        let record = ended(&server, &jobs, job["job_id"].as_str().ok_or("no id")?).await?;
        let ms = |key: &str| record["timings"][key].as_f64().unwrap_or_default();
        let start = ms("queue_ms") + ms("create_ms") + ms("start_ms");
        to_start.push(activation / start);
        to_whole.push(activation / ms("total_ms"));
        activated.push(activation);
        begun.push(start);
        whole.push(ms("total_ms"));
    }
    for list in [&mut activated, &mut begun, &mut whole, &mut to_start, &mut to_whole] {
        list.sort_by(f64::total_cmp);
    }
    let median = |list: &[f64]| percentile(list, 0.5);
    line(&format!("activation without dependencies, {name}"), &format!("p50 {:.0} ms", median(&activated)));
    line("  a job's start, a whole job", &format!("p50 {:.0} ms, {:.0} ms", median(&begun), median(&whole)));
    let spread = |list: &[f64]| {
        let (least, most) = (percentile(list, 0.0), percentile(list, 1.0));
        format!("{:.2}  ({least:.2}–{most:.2})", median(list))
    };
    line("  ratio to the start (median of pairs; min–max)", &format!("{}  wanted ≤ 1.5", spread(&to_start)));
    line("  ratio to the whole job", &spread(&to_whole));
    Ok(())
}

/// A database of its own on the server at `url`, for as long as the measurement takes.
async fn with_database(url: &str, name: &str, measure: impl AsyncFnOnce(&str) -> Result<()>) -> Result<()> {
    let (at, _) = url.rsplit_once('/').ok_or("ADE_TEST_DATABASE_URL names no database")?;
    let name = format!("bench_{name}_{}", std::process::id());
    let mut admin = PgConnection::connect(url).await?;
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await?;
    let measured = measure(&format!("{at}/{name}")).await;
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&mut admin).await?;
    measured
}

fn main() -> Result<()> {
    let smoke = std::env::args().any(|word| word == "--smoke");
    let only = std::env::args().find_map(|word| word.strip_prefix("--only=").map(str::to_owned));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only.split(',').any(|one| one == name));
    let postgres = std::env::var("ADE_TEST_DATABASE_URL").ok();
    if postgres.is_none() {
        line("PostgreSQL", "not measured: run it under tests/postgres run --durable");
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        if wanted("submissions") {
            let jobs = if smoke { 640 } else { 20_480 };
            submissions("SQLite", None, jobs).await?;
            if let Some(url) = &postgres {
                with_database(url, "submissions", async |url| submissions("PostgreSQL", Some(url), jobs).await).await?;
            }
        }
        if wanted("jobs") {
            throughput(if smoke { 4 } else { 30 }, if smoke { 1 } else { 5 }).await?;
        }
        if wanted("noise") {
            noise(if smoke { 640 } else { 100_000 }).await?;
        }
        if wanted("versions") {
            let (count, times) = if smoke { (200, 20) } else { (10_000, 500) };
            versions("SQLite", None, count, times).await?;
            if let Some(url) = &postgres {
                let measure = async |url: &str| versions("PostgreSQL", Some(url), count, times).await;
                with_database(url, "versions", measure).await?;
            }
        }
        if wanted("activations") {
            let pairs = if smoke { 2 } else { 20 };
            activations("a container for each", &["--pool-max", "0"], pairs).await?;
            activations("parked containers", &[], pairs).await?;
        }
        Ok(())
    })
}
