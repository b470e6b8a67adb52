//! The end of executions: fencing, cancels, leases, deadlines.

use crate::harness::{World, actor, end, event};
use ade::queue::{JobState, Phase};
use ade::sandbox::{Failure, FailureKind};
use ade::store::{Cancelled, JobRow, Requeue, Seal, Submission};

async fn cancel(world: &World, job: &JobRow) -> Cancelled {
    world.store.cancel(&job.workspace_id, &job.id, &actor("someone")).await.expect("an answer")
}

async fn requeue(world: &World, job: &JobRow, why: Requeue) -> Option<JobState> {
    world.store.requeue(&job.id, job.execution, &why, &world.defaults).await.expect("an answer")
}

async fn seal(world: &World, job: &JobRow) -> Seal {
    world.store.seal(&job.id, job.execution).await.expect("an answer")
}

fn kind(job: &JobRow) -> String {
    job.error.as_ref().and_then(|error| error["kind"].as_str()).unwrap_or_default().to_owned()
}

on_both! {
    async fn an_old_execution_changes_nothing_after_another_began(world) {
        let tenant = world.tenant("acme").await;
        let old = world.running(&tenant).await;
        assert_eq!(requeue(&world, &old, Requeue::Lost).await, Some(JobState::Queued));
        for round in 0..2 {
            if round == 1 {
                assert_eq!(world.claim_one().await.execution, 2);
            }
            let before = format!("{:?}", world.job(&old).await);
            let appended = world
                .store
                .append_events(&[(old.id.clone(), 1, Some(Phase::Running), vec![event(old.next_seq)])])
                .await;
            assert_eq!(appended.expect("an answer"), [(old.id.clone(), 1)], "said to be fenced off");
            assert_eq!(seal(&world, &old).await, Seal::Fenced);
            let finished = world.store.finish(&old.id, 1, &end(JobState::Succeeded, old.next_seq)).await;
            assert!(!finished.expect("an answer"));
            assert_eq!(requeue(&world, &old, Requeue::Lost).await, None);
            assert_eq!(format!("{:?}", world.job(&old).await), before, "round {round}");
            world.audit().await;
        }
        let current = world.job(&old).await;
        assert!(world.finish(&current, JobState::Succeeded).await);
        assert_eq!(world.counters(&tenant).await, (0, 0));
    }

    async fn a_job_ends_once(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        assert!(world.finish(&job, JobState::Succeeded).await);
        assert!(!world.finish(&job, JobState::Failed).await);
        assert_eq!(world.state(&job).await, JobState::Succeeded);
        assert_eq!(seal(&world, &job).await, Seal::Fenced);
        assert_eq!(requeue(&world, &job, Requeue::Drained).await, None);
    }

    async fn a_job_cannot_end_in_a_state_that_is_no_end(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        for state in [JobState::Queued, JobState::Running, JobState::Cancelling] {
            assert!(world.store.finish(&job.id, 1, &end(state, job.next_seq)).await.is_err(), "{state}");
        }
        assert_eq!(world.state(&job).await, JobState::Running);
    }

    async fn cancel_does_what_the_state_allows_and_the_counters_follow(world) {
        let tenant = world.tenant("acme").await;
        let stranger = world.tenant("stranger").await;

        let waiting = world.submit(tenant.submission()).await;
        let foreign = world.store.cancel(&stranger.workspace, &waiting.id, &actor("someone")).await.expect("an answer");
        assert!(matches!(foreign, Cancelled::NotFound), "{foreign:?}");
        let Cancelled::Accepted(row) = cancel(&world, &waiting).await else { panic!("a waiting job is cancelled") };
        assert_eq!((row.state, row.execution, kind(&row)), (JobState::Cancelled, 0, "cancelled".to_owned()));
        assert_eq!(world.counters(&tenant).await, (0, 0));
        let Cancelled::Accepted(again) = cancel(&world, &waiting).await else { panic!("twice is the same") };
        assert_eq!(again.revision, row.revision, "and changes nothing");

        let job = world.running(&tenant).await;
        let Cancelled::Accepted(row) = cancel(&world, &job).await else { panic!("a running job is stopped") };
        assert_eq!(row.state, JobState::Cancelling);
        assert_eq!(world.counters(&tenant).await, (0, 1), "it runs until it is stopped");
        assert!(matches!(cancel(&world, &job).await, Cancelled::Accepted(_)));
        let held = world.store.heartbeat(&world.node, 1_000).await.expect("held");
        assert!(held.iter().any(|held| held.job == job.id && held.cancelling), "its node is told");
        assert_eq!(seal(&world, &job).await, Seal::Cancelled);
        assert!(!world.finish(&job, JobState::Succeeded).await, "it may only end as cancelled");
        assert!(world.finish(&job, JobState::Cancelled).await);
        assert_eq!(world.counters(&tenant).await, (0, 0));

        let sealed = world.running(&tenant).await;
        assert_eq!(seal(&world, &sealed).await, Seal::Sealed);
        assert!(matches!(cancel(&world, &sealed).await, Cancelled::Finishing));
        assert_eq!(world.counters(&tenant).await, (0, 1));
        assert!(world.finish(&sealed, JobState::Succeeded).await);
        assert!(matches!(cancel(&world, &sealed).await, Cancelled::Finished(JobState::Succeeded)));

        let failed = world.running(&tenant).await;
        assert!(world.finish(&failed, JobState::Failed).await);
        assert!(matches!(cancel(&world, &failed).await, Cancelled::Finished(JobState::Failed)));
        assert_eq!(world.counters(&tenant).await, (0, 0));
        let lane = world.config_row(&tenant).await;
        assert_eq!(lane.max_running, None);
    }

    async fn a_new_execution_of_a_sealed_job_can_be_cancelled(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        assert_eq!(seal(&world, &job).await, Seal::Sealed);
        assert_eq!(requeue(&world, &job, Requeue::Lost).await, Some(JobState::Queued));
        let next = world.claim_one().await;
        assert!(matches!(cancel(&world, &next).await, Cancelled::Accepted(_)));
        assert_eq!(requeue(&world, &next, Requeue::Drained).await, Some(JobState::Cancelled));
    }

    /// Whoever comes first wins: an accepted cancel of a running job is kept, and so is a seal.
    async fn a_seal_and_a_cancel_at_once_agree_on_who_was_first(world) {
        let tenant = world.tenant("acme").await;
        let other = world.another().await;
        for _ in 0..60 {
            let job = world.running(&tenant).await;
            let (sealed, cancelled) =
                tokio::join!(other.seal(&job.id, job.execution), cancel(&world, &job));
            let sealed = sealed.expect("an answer");
            match sealed {
                Seal::Sealed => {
                    assert!(matches!(cancelled, Cancelled::Finishing), "sealed, and yet {cancelled:?}");
                    assert!(world.finish(&job, JobState::Succeeded).await);
                }
                Seal::Cancelled => {
                    assert!(matches!(cancelled, Cancelled::Accepted(_)), "{cancelled:?}");
                    assert!(world.finish(&job, JobState::Cancelled).await);
                }
                Seal::Fenced => panic!("it is the job's execution"),
            }
        }
    }

    /// The same, with the order forced: another transaction has sealed and not yet committed when the cancel looks.
    async fn a_cancel_waits_for_a_seal_that_is_being_written(world) {
        if world.kind == crate::harness::Kind::Sqlite {
            return; // One writer at a time: there is no such moment.
        }
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        let slow = format!(
            "DO $$ BEGIN UPDATE jobs SET sealed = 1 WHERE id = '{}'; PERFORM pg_sleep(0.4); END $$",
            job.id
        );
        let (_, cancelled) = tokio::join!(world.sql(&slow), async {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            cancel(&world, &job).await
        });
        assert!(matches!(cancelled, Cancelled::Finishing), "{cancelled:?}");
        assert!(world.finish(&job, JobState::Succeeded).await);
    }

    async fn a_heartbeat_extends_leases_and_says_what_the_node_has(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        let other = ade::ids::NodeId::generate();
        assert!(world.store.heartbeat(&other, 1_000).await.expect("held").is_empty());
        world.expire_lease(&job.id).await;
        let held = world.store.heartbeat(&world.node, 60_000).await.expect("held");
        assert_eq!(held.len(), 1);
        assert_eq!((&held[0].job, held[0].execution, held[0].cancelling), (&job.id, 1, false));
        let swept = world.store.sweep_leases(10, &world.defaults).await.expect("swept");
        assert!(swept.jobs.is_empty(), "the lease was extended");
        assert_eq!(world.state(&job).await, JobState::Running);
    }

    async fn lost_jobs_wait_again_at_their_place_and_fail_after_too_many_losses(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        world.submit(tenant.submission()).await;
        for loss in 1..=3 {
            world.expire_lease(&job.id).await;
            let swept = world.store.sweep_leases(10, &world.defaults).await.expect("swept");
            assert_eq!(swept.jobs, std::slice::from_ref(&job.id));
            assert_eq!(swept.requeued, usize::from(loss < 3));
            if loss < 3 {
                let next = world.claim_one().await;
                assert_eq!((&next.id, next.execution), (&job.id, loss + 1), "before the one that came later");
            }
        }
        let lost = world.job(&job).await;
        assert_eq!((lost.state, kind(&lost)), (JobState::Failed, "node_lost".to_owned()));
        assert_eq!(world.counters(&tenant).await, (1, 0));
    }

    async fn a_drained_execution_does_not_count_against_its_job(world) {
        let tenant = world.tenant("acme").await;
        let mut job = world.running(&tenant).await;
        for _ in 0..5 {
            assert_eq!(requeue(&world, &job, Requeue::Drained).await, Some(JobState::Queued));
            job = world.claim_one().await;
        }
        let broken = || Requeue::Infrastructure(Failure::new(FailureKind::ImageMissing, "Docker went away"));
        for _ in 0..2 {
            assert_eq!(requeue(&world, &job, broken()).await, Some(JobState::Queued));
            job = world.claim_one().await;
        }
        assert_eq!(requeue(&world, &job, broken()).await, Some(JobState::Failed), "these do");
        let failed = world.job(&job).await;
        assert_eq!(kind(&failed), FailureKind::ImageMissing.as_str(), "with the failure that was last");
    }

    async fn a_lost_job_that_was_being_cancelled_is_cancelled(world) {
        let tenant = world.tenant("acme").await;
        let job = world.running(&tenant).await;
        cancel(&world, &job).await;
        world.expire_lease(&job.id).await;
        let swept = world.store.sweep_leases(10, &world.defaults).await.expect("swept");
        assert_eq!((swept.jobs.len(), swept.requeued), (1, 0));
        assert_eq!(world.state(&job).await, JobState::Cancelled);
        assert_eq!(world.counters(&tenant).await, (0, 0));
    }

    async fn sweeps_take_no_more_than_they_are_told(world) {
        let tenant = world.tenant("acme").await;
        world.submit_many(&tenant.submissions(7)).await;
        world.claim(7).await;
        world.sql("UPDATE jobs SET lease_expires_at = 1").await;
        let mut sizes = Vec::new();
        for _ in 0..3 {
            sizes.push(world.store.sweep_leases(3, &world.defaults).await.expect("swept").jobs.len());
        }
        assert_eq!(sizes, [3, 3, 1]);
    }

    async fn a_node_that_starts_again_gives_back_what_it_had_and_nothing_else(world) {
        let tenant = world.tenant("acme").await;
        world.submit_many(&tenant.submissions(4)).await;
        world.claim(3).await;
        let other = ade::ids::NodeId::generate();
        let theirs = world.store.claim(&other, 1, &world.defaults).await.expect("a claim").remove(0).job;
        let swept = world.store.recover(&world.node, 100, &world.defaults).await.expect("swept");
        assert_eq!((swept.jobs.len(), swept.requeued), (3, 3));
        assert_eq!(world.state(&theirs).await, JobState::Running);
        assert_eq!(world.counters(&tenant).await, (3, 1));
    }

    async fn a_job_that_waits_longer_than_it_may_fails(world) {
        let tenant = world.tenant("acme").await;
        let timed = |ms| Submission { queue_timeout_ms: Some(ms), ..tenant.submission() };
        let late = world.submit(timed(1_000)).await;
        let patient = world.submit(timed(600_000)).await;
        world.submit(tenant.submission()).await;
        world.age(&late, 2_000).await;
        let swept = world.store.sweep_deadlines(10).await.expect("swept");
        assert_eq!(swept.jobs, std::slice::from_ref(&late.id));
        let failed = world.job(&late).await;
        assert_eq!((failed.state, kind(&failed)), (JobState::Failed, "queue_timeout".to_owned()));
        assert_eq!(world.state(&patient).await, JobState::Queued);
        assert_eq!(world.counters(&tenant).await, (2, 0));
    }

    async fn the_time_that_an_execution_took_is_not_waiting(world) {
        let tenant = world.tenant("acme").await;
        world.submit(Submission { queue_timeout_ms: Some(10_000), ..tenant.submission() }).await;
        let job = world.claim_one().await;
        world.age(&job, 3_600_000).await;
        world.sql("UPDATE jobs SET started_at = started_at - 3600000").await;
        assert_eq!(requeue(&world, &job, Requeue::Drained).await, Some(JobState::Queued));
        assert!(world.store.sweep_deadlines(10).await.expect("swept").jobs.is_empty(), "it ran for that hour");
        assert_eq!(world.state(&job).await, JobState::Queued);
    }
}
