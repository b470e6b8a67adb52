//! Submitting: what is taken, what is refused, and that the bounds are exact.

use crate::harness::{Tenant, actor};
use ade::ids::JobId;
use ade::queue::{Admissions, JobState, PRIORITY_STEP_MS};
use ade::store::{Cancelled, InstanceChange, JobFilter, QueueState, Refused, Scope, Submission, WorkspaceChange};
use serde_json::json;
use std::collections::BTreeSet;

fn with_key(submission: Submission, key: &str, fingerprint: &str) -> Submission {
    Submission { idempotency: Some((key.into(), fingerprint.into())), ..submission }
}

async fn ids(world: &crate::harness::World, tenant: &Tenant, filter: JobFilter, limit: i64) -> Vec<JobId> {
    let jobs = world.store.jobs(&tenant.workspace, &filter, limit).await.expect("a list");
    jobs.into_iter().map(|job| job.id).collect()
}

on_both! {
    async fn a_job_is_read_back_as_it_was_submitted(world) {
        let tenant = world.tenant("acme").await;
        let submission = Submission {
            priority: 3,
            metadata: Some(json!({"order": [1, 2, {"ä": null}]})),
            queue_timeout_ms: Some(5_000),
            ..tenant.submission()
        };
        let taken = world.submit(submission.clone()).await;
        let read = world.job(&taken).await;
        assert_eq!(format!("{taken:?}"), format!("{read:?}"), "the answer is what is stored");
        assert_eq!((read.state, read.attempt, read.execution, read.revision), (JobState::Queued, 1, 0, 1));
        assert_eq!((&read.documents, &read.metadata), (&submission.documents, &submission.metadata));
        assert_eq!(read.queue_rank, read.queued_at - 3 * PRIORITY_STEP_MS);
        assert_eq!(read.queue_deadline, Some(read.queued_at + 5_000));
        let other = world.tenant("other").await;
        assert!(world.store.job(&other.workspace, &read.id).await.expect("an answer").is_none(), "not another's");
    }

    async fn jobs_are_listed_from_the_newest_by_filter_and_by_page(world) {
        let tenant = world.tenant("acme").await;
        let (config, version) = world.config(&tenant.workspace, "second").await;
        let document = world.document(&tenant.workspace, 5).await;
        let second = Tenant { config: config.clone(), version, document: document.clone(), ..tenant.clone() };
        let mut made = Vec::new();
        for turn in 0..9 {
            let of = if turn % 3 == 0 { &second } else { &tenant };
            made.push(world.submit(of.submission()).await);
        }
        let stranger = world.tenant("stranger").await;
        world.submit(stranger.submission()).await;
        let mut expected: Vec<JobId> = made.iter().map(|job| job.id.clone()).collect();
        expected.sort_by(|a, b| b.cmp(a));
        assert_eq!(ids(&world, &tenant, JobFilter::default(), 100).await, expected);
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = ids(&world, &tenant, JobFilter { before: before.clone(), ..JobFilter::default() }, 4).await;
            let Some(last) = page.last() else { break };
            before = Some(last.to_string());
            paged.extend(page);
        }
        assert_eq!(paged, expected, "pages are the whole, once");
        let of_second = JobFilter { config_id: Some(config), ..JobFilter::default() };
        assert_eq!(ids(&world, &tenant, of_second, 100).await.len(), 3);
        let with_document = JobFilter { document_id: Some(document.document_id), ..JobFilter::default() };
        assert_eq!(ids(&world, &tenant, with_document, 100).await.len(), 3);
        let cancelled = world.store.cancel(&tenant.workspace, &made[4].id, &actor("someone")).await.expect("an answer");
        assert!(matches!(cancelled, Cancelled::Accepted(_)));
        let final_ones = JobFilter { states: vec![JobState::Cancelled, JobState::Failed], ..JobFilter::default() };
        assert_eq!(ids(&world, &tenant, final_ones, 100).await, [made[4].id.clone()]);
        world.age(&made[0], 1_000_000).await;
        let recent = JobFilter { created_after: Some(made[0].queued_at - 1_000), ..JobFilter::default() };
        assert_eq!(ids(&world, &tenant, recent, 100).await.len(), 8);
    }

    async fn the_bounds_are_exact_under_many_submitters_on_two_handles(world) {
        let other = world.another().await;
        let small = world.tenant("small").await;
        world.change(&small, WorkspaceChange { max_queued: Some(Some(50)), ..WorkspaceChange::default() }).await;
        let large = world.tenant("large").await;
        let mut defaults = world.defaults;
        defaults.max_queued = 200;
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let store = if task % 2 == 0 { world.store.clone() } else { other.clone() };
                let (small, large) = (small.clone(), large.clone());
                tokio::spawn(async move {
                    let (mut taken, mut refused) = (Vec::new(), Vec::new());
                    for _ in 0..2 {
                        let mut batch = small.submissions(2);
                        batch.extend(large.submissions(3));
                        let (answers, _) = store.submit(&batch, &defaults).await.expect("answers");
                        assert_eq!(answers.len(), batch.len(), "each has an answer");
                        for answer in answers {
                            match answer {
                                Ok(admitted) => taken.push(admitted.job.id),
                                Err(why) => refused.push(why),
                            }
                        }
                    }
                    (taken, refused)
                })
            })
            .collect();
        let (mut taken, mut refused) = (BTreeSet::new(), 0);
        for task in tasks {
            let (some, why) = task.await.expect("no panic");
            taken.extend(some);
            refused += why.len();
            for why in why {
                let bound = match why {
                    Refused::Full { scope: Scope::Instance, queued, max } => (queued, max) == (200, 200),
                    Refused::Full { scope: Scope::Workspace, queued, max } => (queued, max) == (50, 50),
                    _ => false,
                };
                assert!(bound, "{why:?}");
            }
        }
        assert_eq!((taken.len(), refused), (200, 64 * 2 * 5 - 200), "not one above the bound, not one below");
        assert_eq!(world.count("SELECT count(*) FROM jobs").await, 200, "nothing is stored of the refused");
        assert_eq!(world.count("SELECT count(*) FROM job_events").await, 200);
        assert_eq!(world.count("SELECT count(*) FROM job_documents").await, 200);
        assert_eq!(world.counters(&small).await.0, 50);
    }

    async fn a_stored_bound_goes_before_the_setting(world) {
        let tenant = world.tenant("acme").await;
        let bound = InstanceChange { max_queued: Some(Some(1)), ..InstanceChange::default() };
        world.store.change_instance(bound, &actor("root")).await.expect("changed");
        world.submit(tenant.submission()).await;
        let why = world.try_submit(tenant.submission()).await.expect_err("refused");
        assert_eq!(why, Refused::Full { scope: Scope::Instance, queued: 1, max: 1 });
        world.claim_one().await;
        world.submit(tenant.submission()).await;
    }

    async fn twins_at_once_are_one_job(world) {
        let other = world.another().await;
        let tenant = world.tenant("acme").await;
        let submission = tenant.submission();
        let tasks: Vec<_> = (0..32)
            .map(|task| {
                let store = if task % 2 == 0 { world.store.clone() } else { other.clone() };
                let (batch, defaults) = (vec![submission.clone(), submission.clone()], world.defaults);
                tokio::spawn(async move { store.submit(&batch, &defaults).await.expect("answers").0 })
            })
            .collect();
        let (mut jobs, mut new) = (BTreeSet::new(), 0);
        for task in tasks {
            for answer in task.await.expect("no panic") {
                let admitted = answer.expect("taken");
                new += usize::from(!admitted.replayed);
                jobs.insert(admitted.job.id);
            }
        }
        assert_eq!((jobs.len(), new), (1, 1));
    }

    async fn a_twin_counts_while_it_waits_runs_or_succeeded_and_not_after_a_failure(world) {
        let tenant = world.tenant("acme").await;
        let submission = tenant.submission();
        let job = world.submit(submission.clone()).await;
        for step in 0..3 {
            let twin = world.try_submit(submission.clone()).await.expect("taken");
            assert!(twin.replayed && twin.job.id == job.id, "step {step}");
            match step {
                0 => assert_eq!(world.claim_one().await.id, job.id),
                1 => assert!(world.finish(&world.job(&job).await, JobState::Succeeded).await),
                _ => {}
            }
        }
        let (config_id, version_id) = world.config(&tenant.workspace, "second").await;
        let elsewhere = Submission { config_id, version_id, ..submission.clone() };
        assert_ne!(world.submit(elsewhere).await.id, job.id, "another version is no twin");
        world.claim_one().await;
        let failed = world.running(&tenant).await;
        assert!(world.finish(&failed, JobState::Failed).await);
        let again = Submission { input_hash: failed.input_hash.clone(), ..tenant.submission() };
        assert_ne!(world.submit(again).await.id, failed.id);
    }

    async fn a_retry_is_a_new_job_with_the_next_attempt(world) {
        let tenant = world.tenant("acme").await;
        let first = world.running(&tenant).await;
        assert!(world.finish(&first, JobState::Succeeded).await);
        let submission = Submission {
            input_hash: first.input_hash.clone(),
            retry_of: Some((first.id.clone(), first.attempt)),
            ..tenant.submission()
        };
        let retry = world.submit(submission).await;
        assert_eq!((retry.attempt, retry.execution, &retry.retry_of), (2, 0, &Some(first.id.clone())));
        let events = world.store.events_after(&retry.id, 0, 10).await.expect("events");
        assert_eq!(events.len(), 2);
        assert!(events[1].line.contains(r#""event":"retry""#) && events[1].line.contains(first.id.as_str()));
        let twin = Submission { input_hash: first.input_hash.clone(), ..tenant.submission() };
        assert_eq!(world.try_submit(twin).await.expect("taken").job.id, retry.id, "the newest is the twin");
    }

    async fn of_a_job_that_is_retried_by_many_at_once_there_is_one_next_attempt(world) {
        let tenant = world.tenant("acme").await;
        let other = world.another().await;
        let first = world.running(&tenant).await;
        assert!(world.finish(&first, JobState::Failed).await);
        let again = |job: &ade::store::JobRow| Submission {
            input_hash: first.input_hash.clone(),
            retry_of: Some((job.id.clone(), job.attempt)),
            ..tenant.submission()
        };
        let retries = (0..16).map(|turn| {
            let (store, world) = (if turn % 2 == 0 { world.store.clone() } else { other.clone() }, std::sync::Arc::clone(&world));
            // Some of them in one batch, too.
            let batch = vec![again(&first); 1 + turn % 3];
            tokio::spawn(async move { store.submit(&batch, &world.defaults).await.expect("an answer").0 })
        });
        let mut answers = Vec::new();
        for retry in retries.collect::<Vec<_>>() {
            answers.extend(retry.await.expect("no panic").into_iter().map(|answer| answer.expect("taken")));
        }
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1, "one is new");
        let second = answers[0].job.clone();
        assert!(answers.iter().all(|answer| answer.job.id == second.id && answer.job.attempt == 2));
        assert_eq!(world.counters(&tenant).await, (1, 0));

        // While it runs it is the answer as well; from its end on, there are new ones, each with a number of its own.
        assert_eq!(world.claim_one().await.id, second.id);
        let known = world.try_submit(again(&first)).await.expect("taken");
        assert!(known.replayed && known.job.id == second.id);
        let second = world.job(&second).await;
        assert!(world.finish(&second, JobState::Failed).await);
        let third = world.submit(again(&first)).await;
        assert_eq!((third.attempt, &third.retry_of), (3, &Some(first.id.clone())));
        let known = world.try_submit(again(&second)).await.expect("taken");
        assert!(known.replayed && known.job.id == third.id, "an attempt at the same job");
        // One that is being cancelled will bring nothing.
        let third = world.claim_one().await;
        world.store.cancel(&tenant.workspace, &third.id, &actor("someone")).await.expect("an answer");
        let fourth = world.submit(again(&second)).await;
        assert_eq!(fourth.attempt, 4);

        // Another job of the same work has attempts of its own.
        let fifth = world.claim_one().await;
        assert_eq!(fifth.id, fourth.id);
        for job in [&third, &fifth] {
            assert!(world.finish(job, if job.id == third.id { JobState::Cancelled } else { JobState::Failed }).await);
        }
        world.submit(Submission { input_hash: first.input_hash.clone(), ..tenant.submission() }).await;
        let separate = world.claim_one().await;
        assert_eq!(separate.attempt, 1);
        assert!(world.finish(&separate, JobState::Failed).await);
        assert_eq!(world.submit(again(&separate)).await.attempt, 2);
        assert_eq!(world.submit(again(&first)).await.attempt, 5);
    }

    async fn an_idempotency_key_gives_the_same_answer_and_refuses_another_request(world) {
        let tenant = world.tenant("acme").await;
        let job = world.submit(with_key(tenant.submission(), "k", "one")).await;
        let again = world.try_submit(with_key(tenant.submission(), "k", "one")).await.expect("taken");
        assert!(again.replayed && again.job.id == job.id, "whatever the input hash");
        let other = world.try_submit(with_key(tenant.submission(), "k", "two")).await;
        assert_eq!(other.expect_err("refused"), Refused::OtherRequest);
        let stranger = world.tenant("stranger").await;
        world.submit(with_key(stranger.submission(), "k", "two")).await;
        world.sql("UPDATE idempotency_keys SET expires_at = 1").await;
        let fresh = world.submit(with_key(tenant.submission(), "k", "two")).await;
        assert_ne!(fresh.id, job.id, "it was forgotten");
        world.store.expire_idempotency_keys().await.expect("expired");
        assert_eq!(world.count("SELECT count(*) FROM idempotency_keys").await, 1, "the renewed one stays");
    }

    async fn an_idempotency_key_is_remembered_also_when_a_twin_was_the_answer(world) {
        let tenant = world.tenant("acme").await;
        let submission = tenant.submission();
        let job = world.submit(submission.clone()).await;
        let twin = world.try_submit(with_key(submission.clone(), "k", "one")).await.expect("taken");
        assert_eq!(twin.job.id, job.id);
        let other = world.try_submit(with_key(tenant.submission(), "k", "two")).await;
        assert_eq!(other.expect_err("refused"), Refused::OtherRequest);
        world.store.cancel(&tenant.workspace, &job.id, &actor("someone")).await.expect("cancelled");
        let again = world.try_submit(with_key(submission, "k", "one")).await.expect("taken");
        assert!(again.replayed && again.job.id == job.id, "the stored answer, although the twin has ended");
    }

    async fn a_key_whose_job_retention_has_deleted_is_free_again_and_hurts_nobody_in_its_batch(world) {
        let tenant = world.tenant("acme").await;
        let job = world.submit(with_key(tenant.submission(), "k", "one")).await;
        world.store.cancel(&tenant.workspace, &job.id, &actor("someone")).await.expect("cancelled");
        world.store.delete_job(&job.id).await.expect("deleted");
        let batch = [tenant.submission(), with_key(tenant.submission(), "k", "one")];
        let (answers, _) = world.store.submit(&batch, &world.defaults).await.expect("the batch has its answers");
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|admitted| !admitted.replayed)));
    }

    async fn a_document_that_is_gone_is_named(world) {
        let tenant = world.tenant("acme").await;
        let gone = world.document(&tenant.workspace, 1).await;
        let deleted = world.store.delete_document(&tenant.workspace, &gone.document_id, None).await.expect("an answer");
        assert_eq!(deleted, Some(true));
        let submission = Submission { documents: vec![tenant.document.clone(), gone.clone()], ..tenant.submission() };
        let why = world.try_submit(submission).await.expect_err("refused");
        assert_eq!(why, Refused::DocumentGone(gone.document_id.to_string()));
    }

    async fn a_document_in_use_is_kept_until_its_job_has_ended(world) {
        let tenant = world.tenant("acme").await;
        let delete = || async {
            world.store.delete_document(&tenant.workspace, &tenant.document.document_id, None).await.expect("an answer")
        };
        world.submit(tenant.submission()).await;
        assert_eq!(delete().await, Some(false));
        let job = world.claim_one().await;
        assert_eq!(delete().await, Some(false));
        world.store.cancel(&tenant.workspace, &job.id, &actor("someone")).await.expect("cancelling");
        assert_eq!(delete().await, Some(false));
        assert!(world.finish(&job, JobState::Cancelled).await);
        assert_eq!(delete().await, Some(true));
        assert_eq!(delete().await, None);
        assert_eq!(world.store.deleted_documents(10).await.expect("a list").len(), 1);
        world.store.forget_document(&tenant.document.document_id).await.expect("forgotten");
        assert!(world.store.deleted_documents(10).await.expect("a list").is_empty());
    }

    async fn off_refuses_paused_takes_and_neither_hands_out(world) {
        let tenant = world.tenant("acme").await;
        let set = |state| InstanceChange { queue_state: Some(state), ..InstanceChange::default() };
        let safe = |on| InstanceChange { safe_mode: Some(on), ..InstanceChange::default() };
        let waiting = world.submit(tenant.submission()).await;
        world.store.change_instance(set(QueueState::Off), &actor("root")).await.expect("changed");
        assert_eq!(world.try_submit(tenant.submission()).await.expect_err("refused"), Refused::QueueOff);
        assert!(world.claim(1).await.is_empty());
        world.store.change_instance(set(QueueState::Paused), &actor("root")).await.expect("changed");
        world.submit(tenant.submission()).await;
        assert!(world.claim(1).await.is_empty());
        world.store.change_instance(set(QueueState::On), &actor("root")).await.expect("changed");
        world.store.change_instance(safe(true), &actor("root")).await.expect("changed");
        assert_eq!(world.try_submit(tenant.submission()).await.expect_err("refused"), Refused::SafeMode);
        assert!(world.claim(1).await.is_empty());
        world.store.change_instance(safe(false), &actor("root")).await.expect("changed");
        assert_eq!(world.claim(5).await.len(), 2);
        assert_eq!(world.state(&waiting).await, JobState::Running);
    }

    async fn many_clients_of_the_door_get_an_answer_each(world) {
        let tenant = world.tenant("acme").await;
        let told = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&told);
        let mut defaults = world.defaults;
        defaults.workspace_max_queued = 100;
        let door = Admissions::start(world.store.clone(), defaults, ade::telemetry::Metrics::new(), move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let calls: Vec<_> = (0..150)
            .map(|_| {
                let (door, submission) = (door.clone(), tenant.submission());
                tokio::spawn(async move { door.submit(submission).await.expect("an answer") })
            })
            .collect();
        let mut taken = 0;
        for call in calls {
            match call.await.expect("no panic") {
                Ok(_) => taken += 1,
                Err(why) => assert!(matches!(why, Refused::Full { scope: Scope::Workspace, max: 100, .. }), "{why:?}"),
            }
        }
        assert_eq!(taken, 100);
        assert!(told.load(std::sync::atomic::Ordering::Relaxed) > 0, "the scheduler was told");
        assert!(door.retry_after(Scope::Workspace, &tenant.workspace) > 0);
    }
}
