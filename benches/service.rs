//! The benchmarks of the service, as ratios from one run: `tests/postgres run --durable cargo bench --bench service [-- --smoke]`
//!
//! A real `ade serve` over HTTP: submissions from 64 clients, reading configs of a workspace with 10,000 versions, and activations against
//! starts of jobs. On SQLite in a folder of `target/`, and submissions and versions on PostgreSQL too when `ADE_TEST_DATABASE_URL` is
//! set. `--smoke` makes everything small, to see that it is not broken; `--only=versions,activations` picks from `submissions`, `versions` and
//! `activations`. What becomes of jobs once they are submitted is measured by `ade bench`.

use ade::bench::{Service, Setup, Tenant, Traces, percentile, sorted, trivial_package};
use ade::client::ClientError;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const CLIENTS: usize = 64;

const FORM: &str = "multipart/form-data; boundary=bench-boundary";

/// A form with a package, and with a slug where it is to be a new config.
fn form(slug: Option<&str>, zip: &[u8]) -> Vec<u8> {
    let part = "--bench-boundary\r\nContent-Disposition: form-data; name=";
    let slug = slug.map(|slug| format!("{part}\"slug\"\r\n\r\n{slug}\r\n")).unwrap_or_default();
    let head = format!("{slug}{part}\"package\"; filename=\"p.zip\"\r\n\r\n");
    [head.as_bytes(), zip, b"\r\n--bench-boundary--\r\n"].concat()
}

fn line(name: &str, text: &str) {
    println!("{name:<44} {text}");
}

async fn service(database: Option<&str>, args: &[&str]) -> Result<Service> {
    let database = database.into_iter().flat_map(|url| ["--database-url", url]);
    let setup = Setup {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ade")),
        parent: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
        arguments: args.iter().copied().chain(database).map(Into::into).collect(),
        concurrency: 2,
    };
    Ok(Service::start(&setup).await?)
}

async fn tenant(service: &Service) -> Result<Tenant> {
    Ok(Tenant::trivial(&Arc::new(service.client()?), &Arc::new(Traces::default()), "default").await?)
}

/// 64 clients submit `jobs` jobs to a paused queue.
async fn submissions(name: &str, database: Option<&str>, jobs: usize) -> Result<()> {
    let service = service(database, &[]).await?;
    service.call("PUT", "/api/v1/system/queue", Some(&json!({"state": "paused"}))).await?;
    let tenant = tenant(&service).await?;
    let started = Instant::now();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        // The client shares the machine with what is measured, so it does no more than it must.
        let (mut connection, tenant) = (service.connect().await?, tenant.clone());
        clients.push(tokio::spawn(async move {
            let mut took = Vec::with_capacity(jobs / CLIENTS);
            for number in 0..jobs / CLIENTS {
                let body = json!(tenant.submission(&format!("{client}-{number}")));
                let before = Instant::now();
                connection.call("POST", "/api/v1/workspaces/default/jobs", Some(&body)).await?;
                took.push(before.elapsed().as_secs_f64() * 1000.0);
            }
            Ok::<_, ClientError>(took)
        }));
    }
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    let (wall, took) = (started.elapsed().as_secs_f64(), sorted(took));
    let status = service.call("GET", "/api/v1/system/queue", None).await?;
    if status["queued"].as_u64() != Some(took.len() as u64) {
        return Err(format!("{} jobs were accepted and {} wait", took.len(), status["queued"]).into());
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = took.len() as f64 / wall;
    let (_, most) = service.memory_mb();
    line(
        &format!("POST /jobs from {CLIENTS} clients, {name}"),
        &format!(
            "{rate:.0} jobs/s, p50 {:.1} ms, p99 {:.1} ms, server {most:.0} MB  wanted ≥ 2000, < 50 ms, < 150 MB",
            percentile(&took, 0.5),
            percentile(&took, 0.99),
        ),
    );
    Ok(())
}

/// Publishes `count` versions, half of them of one config and the rest of ten others.
async fn publish(service: &Service, count: usize) -> Result<String> {
    let base = "/api/v1/workspaces/default/configs";
    // By turns, so that each is a new version.
    let packages = [trivial_package("1.0.0")?, trivial_package("1.0.1")?];
    let mut publishers = Vec::new();
    for number in 0..=10 {
        let versions = if number == 0 { count / 2 } else { count / 20 };
        let mut client = service.connect().await?;
        let packages = packages.clone();
        publishers.push(tokio::spawn(async move {
            let new = form(Some(&format!("config-{number}")), &packages[0]);
            let config = client.send("POST", base, FORM, &new).await?;
            let path = format!("{base}/{}", config["config_id"].as_str().ok_or("no config")?);
            let next = packages.map(|package| form(None, &package));
            for version in 1..versions {
                client.send("POST", &format!("{path}/versions"), FORM, &next[version % 2]).await?;
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
    let service = service(database, &[]).await?;
    let started = Instant::now();
    let config = publish(&service, count).await?;
    line(&format!("{count} versions published, {name}"), &format!("{:.1} s", started.elapsed().as_secs_f64()));
    let mut client = service.connect().await?;
    let list = format!("{config}/versions?limit=200");
    let (mut oldest, mut last, mut page) = (Value::Null, list.clone(), list.clone());
    let mut found = 0;
    loop {
        let answer = client.call("GET", &page, None).await?;
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
            client.call("GET", &path, None).await?;
            took.push(before.elapsed().as_secs_f64() * 1000.0);
        }
        let took = sorted(took);
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
    let service = service(None, args).await?;
    let tenant = tenant(&service).await?;
    let path = format!("/api/v1/workspaces/default/configs/{}/versions", tenant.config());
    let mut client = service.connect().await?;
    let second = client.send("POST", &path, FORM, &form(None, &trivial_package("1.0.1")?)).await?;
    let second = second["config_version_id"].as_str().ok_or("no version")?.parse()?;
    let tenants = [tenant.clone(), tenant.with_version(second)];
    let (mut activated, mut begun, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_start, mut to_whole) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Whatever is made ready ahead is ready again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let tenant = &tenants[pair % 2];
        let before = Instant::now();
        client.call("POST", &format!("{path}/{}/activate", tenant.version()), None).await?;
        let activation = before.elapsed().as_secs_f64() * 1000.0;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let timings = tenant.run(&format!("pair-{pair}")).await?.record.timings;
        #[allow(clippy::cast_precision_loss)]
        let ms = |time: Option<u64>| time.unwrap_or_default() as f64;
        let start = ms(timings.queue_ms) + ms(timings.create_ms) + ms(timings.start_ms);
        to_start.push(activation / start);
        to_whole.push(activation / ms(timings.total_ms));
        activated.push(activation);
        begun.push(start);
        whole.push(ms(timings.total_ms));
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
