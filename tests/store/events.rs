//! The log of a job.

use crate::harness::{end, event, log};
use ade::queue::{JobState, Phase};
use ade::store::Requeue;
use serde_json::Value;

on_both! {
    async fn numbers_have_no_gap_over_two_executions(world) {
        let tenant = world.tenant("acme").await;
        let first = world.running(&tenant).await;
        let append = |job: ade::store::JobRow, phase, from: u64, count: u64| {
            let world = std::sync::Arc::clone(&world);
            async move {
                let batch = [(job.id.clone(), job.execution, phase, (from..from + count).map(event).collect())];
                assert!(world.store.append_events(&batch).await.expect("an answer").is_empty());
            }
        };
        append(first.clone(), Some(Phase::Starting), first.next_seq, 40).await;
        assert_eq!(world.job(&first).await.phase, Some(Phase::Starting));
        append(first.clone(), None, first.next_seq + 40, 1).await;
        assert_eq!(world.job(&first).await.phase, Some(Phase::Starting), "none leaves it");
        world.store.requeue(&first.id, 1, &Requeue::Lost, &world.defaults).await.expect("requeued");
        let second = world.claim_one().await;
        append(second.clone(), Some(Phase::Running), second.next_seq, 5).await;
        let last = world.job(&second).await.next_seq;
        assert!(world.store.finish(&second.id, 2, &end(JobState::Succeeded, last)).await.expect("an answer"));
        let events = world.store.events_after(&first.id, 0, 1_000).await.expect("events");
        let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
        for event in &events {
            let line: Value = serde_json::from_str(&event.line).expect("a JSON object");
            assert_eq!(line["seq"], event.seq, "the line says the same");
        }
    }

    async fn pages_of_events_continue_where_the_last_one_ended(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        let batch = [(job.id.clone(), 1, None, (job.next_seq..job.next_seq + 24).map(event).collect())];
        world.store.append_events(&batch).await.expect("appended");
        let (mut seen, mut after) = (Vec::new(), 0);
        loop {
            let page = world.store.events_after(&job.id, after, 10).await.expect("a page");
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 10);
            after = last.seq;
            seen.extend(page.into_iter().map(|event| event.seq));
        }
        assert_eq!(seen, (1..job.next_seq + 24).collect::<Vec<_>>());
        assert!(world.store.events_after(&job.id, u64::MAX, 10).await.expect("a page").is_empty());
    }

    async fn one_fenced_execution_does_not_stop_the_others_of_its_batch(world) {
        let tenant = world.tenant("acme").await;
        let (fenced, live) = (world.running(&tenant).await, world.running(&tenant).await);
        world.store.requeue(&fenced.id, 1, &Requeue::Lost, &world.defaults).await.expect("requeued");
        let batch = [
            (fenced.id.clone(), 1, None, vec![event(fenced.next_seq)]),
            (live.id.clone(), 1, Some(Phase::Running), vec![event(live.next_seq)]),
        ];
        assert_eq!(world.store.append_events(&batch).await.expect("an answer"), [(fenced.id.clone(), 1)]);
        assert_eq!(world.job(&live).await.next_seq, live.next_seq + 1);
    }

    async fn events_go_once_the_log_is_a_file_and_not_before_the_end(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        world.store.events_are_stored(&job.id, &log()).await.expect("an answer");
        assert!(!world.store.events_after(&job.id, 0, 10).await.expect("events").is_empty(), "the job still runs");
        assert!(world.finish(&job, JobState::Succeeded).await);
        let loose = world.store.jobs_with_loose_events(10).await.expect("jobs");
        assert_eq!(loose, [(tenant.workspace.clone(), job.id.clone(), 1)]);
        world.store.events_are_stored(&job.id, &log()).await.expect("an answer");
        assert!(world.store.events_after(&job.id, 0, 10).await.expect("events").is_empty());
        assert!(world.store.jobs_with_loose_events(10).await.expect("jobs").is_empty());
        let job = world.job(&job).await;
        assert!(job.events_stored && job.events_file == Some(log()));
    }

    /// The writers of a node touch many jobs at once, and so does the heartbeat.
    async fn heartbeats_and_appends_of_many_jobs_do_not_block_each_other(world) {
        let tenant = world.tenant("acme").await;
        world.submit_many(&tenant.submissions(24)).await;
        let mut jobs: Vec<_> = world.claim(24).await.into_iter().map(|claimed| claimed.job).collect();
        jobs.sort_by(|a, b| b.id.cmp(&a.id));
        let beats = tokio::spawn({
            let world = std::sync::Arc::clone(&world);
            async move {
                for _ in 0..40 {
                    world.store.heartbeat(&world.node, 60_000).await.expect("no deadlock");
                }
            }
        });
        for round in 0..40 {
            let batch: Vec<_> =
                jobs.iter().map(|job| (job.id.clone(), 1, None, vec![event(job.next_seq + round)])).collect();
            assert!(world.store.append_events(&batch).await.expect("no deadlock").is_empty());
        }
        beats.await.expect("no panic");
    }

    /// The old execution's last events and the sweep come at the same moment.
    async fn a_sweep_during_an_append_loses_no_number(world) {
        let tenant = world.tenant("acme").await;
        let other = world.another().await;
        let mut defaults = world.defaults;
        defaults.max_losses = i64::MAX;
        world.submit(tenant.submission()).await;
        for _ in 0..40 {
            let job = world.claim_one().await;
            world.expire_lease(&job.id).await;
            let batch = [(job.id.clone(), job.execution, None, (job.next_seq..job.next_seq + 3).map(event).collect())];
            let (appended, swept) = tokio::join!(other.append_events(&batch), world.store.sweep_leases(5, &defaults));
            appended.expect("written, or fenced off");
            if swept.expect("swept").jobs.is_empty() {
                let again = world.store.sweep_leases(5, &defaults).await.expect("swept");
                assert_eq!(again.jobs.len(), 1, "the next sweep has it");
            }
            world.audit().await;
        }
    }

    /// The same, with the order forced.
    async fn a_requeue_waits_for_an_append_that_is_being_written(world) {
        if world.kind == crate::harness::Kind::Sqlite {
            return; // One writer at a time: there is no such moment.
        }
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        let (id, seq) = (&job.id, job.next_seq);
        let slow = format!(
            "DO $$ BEGIN UPDATE jobs SET next_seq = {seq} + 1 WHERE id = '{id}'; \
             INSERT INTO job_events (job_id, seq, line) VALUES ('{id}', {seq}, '{{}}'); PERFORM pg_sleep(0.4); END $$"
        );
        let (_, requeued) = tokio::join!(world.sql(&slow), async {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            world.store.requeue(&job.id, 1, &Requeue::Lost, &world.defaults).await
        });
        assert_eq!(requeued.expect("an answer"), Some(JobState::Queued));
        assert_eq!(world.job(&job).await.next_seq, seq + 2);
    }
}
