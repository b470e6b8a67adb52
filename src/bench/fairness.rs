//! A light tenant, who submits one job after the other, beside a heavy one, who has submitted thousands.

use super::figures::{self, Figures, percentile, sorted};
use super::{Bench, Plan, Site, Tenant, span};
use crate::api::routes::workspaces::{CreateWorkspace, WorkspaceRecord};
use crate::client::ClientError;
use reqwest::Method;
use std::time::Duration;

/// Jobs of the heavy tenant on a service of its own; on one that runs they are fewer, and taken back.
const FLOOD: usize = 5_000;
const FLOOD_THERE: usize = 300;

#[expect(clippy::cast_precision_loss, reason = "milliseconds of one job")]
pub async fn measure(site: &Site, plan: &Plan, figures: &mut Figures) -> Result<(), ClientError> {
    let bench = site.bench(&[]).await?;
    let heavy = tenant(&bench, "ade-bench-heavy").await?;
    let light = tenant(&bench, "ade-bench-light").await?;
    let flood = if bench.own.is_some() { FLOOD } else { FLOOD_THERE };
    let (flood, jobs) = (plan.of(flood, 10), plan.of(100, 3));
    heavy.submit_all((0..flood).map(|number| number.to_string()).collect()).await?;
    tokio::time::sleep(Duration::from_secs(if plan.quick { 0 } else { 2 })).await;
    let (mut waits, mut runs) = (vec![], vec![]);
    for number in 0..jobs {
        let timings = light.run(&number.to_string()).await?.record.timings;
        let waited = timings.queue_ms.unwrap_or_default();
        waits.push(waited as f64);
        runs.push(timings.total_ms.unwrap_or_default().saturating_sub(waited) as f64);
    }
    let (waits, runs) = (sorted(waits), sorted(runs));
    // A wait ends when another job does: like is compared with like.
    let (wait, run) = (percentile(&waits, 0.99), percentile(&runs, 0.99));
    figures.add(&figures::FAIR_WAIT, wait, span(&format!("{jobs} jobs beside {flood} of another"), &waits, 0));
    let usual = format!("p50 {:.0}", percentile(&runs, 0.5));
    figures.add(&figures::FAIR_JOB, run, span(&usual, &runs, 0));
    figures.add(&figures::FAIR_RATIO, if run > 0.0 { wait / run } else { 0.0 }, "");
    Ok(())
}

/// A tenant in a workspace of this name, which is made where there is none.
async fn tenant(bench: &Bench<'_>, slug: &str) -> Result<Tenant, ClientError> {
    let (client, new) = (&bench.client, CreateWorkspace { slug: slug.to_owned(), title: None });
    match client.json::<WorkspaceRecord>(client.request(Method::POST, &["workspaces"]).json(&new)).await {
        Ok(_) => {}
        Err(error) if error.kind == "slug_taken" => {}
        Err(error) => return Err(error),
    }
    Tenant::trivial(client, bench.traces, slug).await
}
