//! A service that has nothing to do, its pool full; then one with followers of events.

use super::figures::{self, Figures};
use super::peer::allow_files;
use super::{Own, Plan, Section, Site, local_only};
use crate::client::ClientError;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::time::{Duration, Instant};

/// Connections that are made at once.
const AT_ONCE: usize = 64;
/// What each side has open besides.
const OTHERS: u64 = 512;
/// Containers parked for each that runs: as many as there are at most, unless it is set otherwise.
const PARKED: u32 = 4;
/// How long a pool may take to be full.
const FILLING: Duration = Duration::from_secs(60);

pub async fn measure(site: &Site, plan: &Plan, figures: &mut Figures) -> Result<(), ClientError> {
    let followers = if plan.quick { plan.followers.min(50) } else { plan.followers };
    // The service has the same limit from here.
    allow_files(u64::try_from(followers).unwrap_or(u64::MAX).saturating_add(OTHERS))?;
    let super::Place::Here { setup, .. } = &site.place else { return Err(local_only(Section::Idle)) };
    let parked = PARKED * setup.concurrency;
    let bench = site.bench(&["--pool-min", &parked.to_string(), "--pool-max", &parked.to_string()]).await?;
    let Some(Own { service, .. }) = &bench.own else { return Err(local_only(Section::Idle)) };
    let tenant = bench.trivial().await?;
    let begun = Instant::now();
    let mut full = 0;
    while full < parked as usize && begun.elapsed() < FILLING {
        full = bench.quiet().await.unwrap_or_default();
    }
    if full < parked as usize {
        figures.notes.push(format!("{full} containers are parked, and not {parked}: the machine is too busy"));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (cpu, begun) = (service.cpu_seconds(), Instant::now());
    tokio::time::sleep(Duration::from_secs(if plan.quick { 1 } else { 20 })).await;
    let share = (service.cpu_seconds() - cpu) * 100.0 / begun.elapsed().as_secs_f64();
    let (memory, peak) = service.memory_mb();
    figures.add(
        &figures::IDLE_MEMORY,
        memory,
        format!("{full} containers parked; {peak:.0} MB at most since its start"),
    );
    figures.add(&figures::IDLE_CPU, share, format!("over {:.0} s", begun.elapsed().as_secs_f64()));

    service.call("PUT", "/api/v1/system/queue", Some(&json!({"state": "paused"}))).await?;
    let (job, _) = tenant.submit("followed").await?;
    let path = format!("/api/v1/workspaces/{}/jobs/{job}/events", bench.workspace);
    let path = path.as_str();
    let following = stream::iter(0..followers).map(|_| async move {
        let mut connection = service.connect().await?;
        connection.follow(path).await?;
        Ok::<_, ClientError>(connection)
    });
    let open: Vec<_> = following.buffer_unordered(AT_ONCE).try_collect().await?;
    tokio::time::sleep(Duration::from_secs(if plan.quick { 0 } else { 5 })).await;
    let (memory, peak) = service.memory_mb();
    let how = format!("{} followers of a job that waits; {peak:.0} MB at most", open.len());
    figures.add(&figures::FOLLOWERS_MEMORY, memory, how);
    Ok(())
}
