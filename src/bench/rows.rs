//! One large table.

use super::figures::{self, Figures, Kind};
use super::tenant::{Tenant, table_package};
use super::{Bench, Plan, Site, workbook};
use crate::client::{Blame, ClientError};
use tokio_util::io::ReaderStream;

const MILLION: u64 = 1_000_000;
/// Fewer rows than this are mostly the start and the end of a job, and their rate says nothing.
const TELLING: u64 = 10_000;

pub async fn measure(site: &Site, plan: &Plan, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<(), ClientError> {
    let bench = site.bench(&[]).await?;
    let kinds = [figures::ROWS_WALL, figures::ROWS_RATE, figures::ROWS_MEMORY];
    let [wall, rate, memory] = kinds;
    let rate = if plan.rows < TELLING { Kind { wanted: None, ..rate } } else { rate };
    table(&bench, plan.rows, [wall, rate, memory], figures, say).await?;
    if plan.million {
        let kinds = [figures::MILLION_WALL, figures::MILLION_RATE, figures::MILLION_MEMORY];
        table(&bench, MILLION, kinds, figures, say).await?;
    }
    Ok(())
}

async fn table(
    bench: &Bench<'_>,
    rows: u64,
    [wall, rate, memory]: [Kind; 3],
    figures: &mut Figures,
    say: &dyn Fn(&str),
) -> Result<(), ClientError> {
    let folder = tempfile::Builder::new().prefix("ade-bench-").tempdir();
    let folder = folder.map_err(|error| ClientError::unwritable(&std::env::temp_dir(), error))?;
    let path = folder.path().join("table.xlsx");
    say(&format!("rows: writing a workbook with {rows} rows"));
    let unwritable = |error: std::io::Error| ClientError::unwritable(folder.path(), error);
    let writing = tokio::task::spawn_blocking({
        let path = path.clone();
        move || workbook::write(&path, rows)
    });
    let broke = |error: tokio::task::JoinError| ClientError::new(Blame::Environment, "host_io", error.to_string());
    writing.await.map_err(broke)?.map_err(unwritable)?;
    let file = tokio::fs::File::open(&path).await.map_err(unwritable)?;
    let bytes = file.metadata().await.map_err(unwritable)?.len();
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, 128 * 1024));
    let tenant =
        Tenant::new(&bench.client, bench.traces, bench.workspace, table_package()?, ("table.xlsx", body)).await?;
    bench.quiet().await;
    say(&format!("rows: running a job over {rows} rows"));
    let done = tenant.run("table").await?;
    let seconds = done.wall.as_secs_f64();
    let size = format!("{rows} rows × 10 columns, {:.1} MB", mb(bytes));
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let per_second = rows as f64 / seconds;
    figures.add(&wall, seconds, size);
    figures.add(&rate, per_second, run_time(&done.record.timings));
    let cpu = done.record.usage.cpu_ms.map(|cpu| format!("{cpu} ms of CPU")).unwrap_or_default();
    match done.record.usage.peak_memory_bytes {
        Some(peak) => figures.add(&memory, mb(peak), cpu),
        None => figures.notes.push("the engine does not tell how much memory a container had".into()),
    }
    Ok(())
}

fn run_time(timings: &crate::api::routes::job_record::Timings) -> String {
    timings.run_ms.map(|run| format!("{run} ms of it in the pipeline")).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
