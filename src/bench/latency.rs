//! One trivial job after the other, each with the engine at rest, in turn with `docker run`, so that both see the same noise.

use super::figures::{self, Figures, percentile, sorted};
use super::peer::What;
use super::{Plan, Site, ms, span};
use crate::client::ClientError;

pub async fn measure(site: &Site, plan: &Plan, figures: &mut Figures) -> Result<(), ClientError> {
    let bench = site.bench(&[]).await?;
    let tenant = bench.trivial().await?;
    let jobs = plan.of(40, 2);
    // What is done once, by a service that has not run a job before.
    tenant.run("first").await?;
    let (mut walls, mut overheads, mut dockers, mut ratios, mut ids) = (vec![], vec![], vec![], vec![], vec![]);
    for number in 0..jobs {
        bench.quiet().await;
        let done = tenant.run(&number.to_string()).await?;
        let wall = ms(done.wall);
        walls.push(wall);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one job")]
        overheads.extend(done.record.timings.run_ms.map(|run| wall - run as f64));
        ids.push(done.record.job_id);
        if let Some(own) = &bench.own {
            bench.quiet().await;
            let docker = ms(own.peer.one(What::Run).await?);
            dockers.push(docker);
            ratios.push(wall / docker);
        }
    }
    let (walls, overheads) = (sorted(walls), sorted(overheads));
    figures.add(&figures::LATENCY_P50, percentile(&walls, 0.5), format!("{jobs} jobs one after the other"));
    figures.add(&figures::LATENCY_P99, percentile(&walls, 0.99), span("", &walls, 0));
    figures.add(&figures::LATENCY_OVERHEAD, percentile(&overheads, 0.5), span("", &overheads, 0));
    figures.add(&figures::LATENCY_PARKED, tenant.parked(ids.iter()).await?, format!("{jobs} jobs"));
    match &bench.own {
        Some(own) => {
            let (dockers, ratios) = (sorted(dockers), sorted(ratios));
            let how = span(own.peer.how(), &dockers, 0);
            figures.add(&figures::LATENCY_DOCKER, percentile(&dockers, 0.5), how);
            let of = span("median of pairs", &ratios, 3);
            figures.add(&figures::LATENCY_RATIO, percentile(&ratios, 0.5), of);
        }
        None => figures.notes.push("docker run is not measured beside a service that may be on another machine".into()),
    }
    Ok(())
}
