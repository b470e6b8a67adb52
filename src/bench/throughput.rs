//! As many trivial jobs as the machine takes, in turn with what is left when nothing of ADE runs; then half as many.

use super::figures::{self, Figures, count, percentile, sorted, sustained};
use super::peer::What;
use super::{Bench, Plan, Site, Tenant, ms, span};
use crate::client::{Blame, ClientError};
use crate::ids::JobId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, MissedTickBehavior};

pub async fn measure(site: &Site, plan: &Plan, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<(), ClientError> {
    let bench = site.bench(&[]).await?;
    let tenant = bench.trivial().await?;
    // Many short rounds: the speed of many machines changes from minute to minute, and only what was measured side by side is compared.
    let (jobs, rounds) = (plan.of(60, 4), plan.of(8, 1));
    let (mut ours, mut dockers, mut ceilings) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        let mut turns = [None, Some(What::Run), Some(What::Ceiling)];
        // So that none always comes after the same other one, should what ran before matter.
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            bench.quiet().await;
            match (turn, &bench.own) {
                (None, _) => ours.push(saturated(&tenant, round, jobs).await?),
                (Some(_), None) => {}
                (Some(what @ What::Run), Some(own)) => {
                    dockers.push(own.peer.rate(what, jobs, own.setup.concurrency as usize).await?);
                }
                // One half is made while the other is removed, as a service does it.
                (Some(what @ What::Ceiling), Some(own)) => {
                    ceilings.push(own.peer.rate(what, jobs, 2 * own.setup.concurrency as usize).await?);
                }
            }
        }
    }
    let ratios = |others: &[f64]| {
        let ratios = ours.iter().zip(others).map(|(ours, other)| if *other > 0.0 { ours / other } else { 0.0 });
        sorted(ratios.collect())
    };
    let (to_docker, to_ceiling) = (ratios(&dockers), ratios(&ceilings));
    let ours = sorted(ours);
    let rate = percentile(&ours, 0.5);
    let of = format!("median of {rounds} times {jobs}");
    figures.add(&figures::THROUGHPUT_JOBS, rate, span(&of, &ours, 2));
    if let Some(own) = &bench.own {
        let at_once = own.setup.concurrency;
        let (dockers, ceilings) = (sorted(dockers), sorted(ceilings));
        let how = span(&format!("{at_once} at once, {}", own.peer.how()), &dockers, 2);
        figures.add(&figures::THROUGHPUT_DOCKER, percentile(&dockers, 0.5), how);
        let how = span(&format!("{} at once", 2 * at_once), &ceilings, 2);
        figures.add(&figures::THROUGHPUT_CEILING, percentile(&ceilings, 0.5), how);
        figures.add(&figures::THROUGHPUT_RATIO, percentile(&to_docker, 0.5), span("median of pairs", &to_docker, 2));
        figures.add(
            &figures::THROUGHPUT_OF_CEILING,
            percentile(&to_ceiling, 0.5),
            span("median of pairs", &to_ceiling, 2),
        );
    } else {
        figures
            .notes
            .push("docker run and the ceiling are not measured beside a service that may be on another machine".into());
    }
    say("throughput: half as many");
    half(&bench, &tenant, rate / 2.0, plan.of(100, 3), figures).await
}

/// Submits all at once; how many a second ended, by the service's own clock.
async fn saturated(tenant: &Tenant, round: usize, jobs: usize) -> Result<f64, ClientError> {
    let ids = tenant.submit_all((0..jobs).map(|number| format!("{round}-{number}")).collect()).await?;
    let mut times = Vec::with_capacity(jobs);
    // From the last, which most of them have ended before.
    for id in ids.iter().rev() {
        let record = tenant.end(id, None).await?;
        times.push((at(&record.queued_at)?, at(record.completed_at.as_deref().unwrap_or_default())?));
    }
    let begun = times.iter().map(|(queued, _)| *queued).min().unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Ok(sustained(times.iter().map(|(_, ended)| (*ended - begun).as_seconds_f64()).collect()))
}

fn at(text: &str) -> Result<OffsetDateTime, ClientError> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| {
        let message = format!("the service gives a time that is none: {error}");
        ClientError::new(Blame::Environment, "unexpected_answer", message)
    })
}

/// Submits so many a second, whatever became of those before.
async fn half(
    bench: &Bench<'_>,
    tenant: &Tenant,
    rate: f64,
    jobs: usize,
    figures: &mut Figures,
) -> Result<(), ClientError> {
    bench.quiet().await;
    let every = Duration::from_secs_f64(1.0 / rate.clamp(0.01, 10_000.0));
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running: JoinSet<Result<(f64, JobId), ClientError>> = JoinSet::new();
    for number in 0..jobs {
        ticks.tick().await;
        let tenant = tenant.clone();
        running.spawn(async move {
            let done = tenant.run(&format!("half-{number}")).await?;
            Ok((ms(done.wall), done.record.job_id))
        });
    }
    let (mut walls, mut ids) = (Vec::with_capacity(jobs), Vec::with_capacity(jobs));
    while let Some(ended) = running.join_next().await {
        let broke = |error: tokio::task::JoinError| ClientError::new(Blame::Environment, "host_io", error.to_string());
        let (wall, id) = ended.map_err(broke)??;
        walls.push(wall);
        ids.push(id);
    }
    let walls = sorted(walls);
    let (p50, p99) = (percentile(&walls, 0.5), percentile(&walls, 0.99));
    figures.add(&figures::HALF_P50, p50, format!("{:.2} jobs/s, {jobs} jobs", count(1) / every.as_secs_f64()));
    figures.add(&figures::HALF_P99, p99, span("", &walls, 0));
    figures.add(&figures::HALF_RATIO, if p50 > 0.0 { p99 / p50 } else { 0.0 }, "");
    figures.add(&figures::HALF_PARKED, tenant.parked(ids.iter()).await?, format!("{jobs} jobs"));
    Ok(())
}
