//! Transactions that meet on PostgreSQL, with the order forced: the test holds a row that both need until both wait.
//! SQLite has one writer at a time, and no such moments.

use crate::harness::{Kind, World, actor, end, event, run};
use ade::queue::{JobState, Phase};
use ade::store::{Cancelled, JobRow, Seal, Store};
use std::sync::Arc;
use std::time::Duration;

fn lock_of(job: &JobRow) -> String {
    format!("SELECT 1 FROM jobs WHERE id = '{}' FOR UPDATE", job.id)
}

/// Both do what they do at the same moment; `first` is the first to wait for the job's row.
async fn meet<A, B>(
    world: &World,
    job: &JobRow,
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    let held = world.hold(&lock_of(job)).await;
    let (first, second, ()) = tokio::join!(
        first,
        async {
            world.until_blocked(1).await;
            second.await
        },
        async {
            world.until_blocked(2).await;
            held.rollback().await.expect("let go");
        }
    );
    (first, second)
}

#[test]
fn of_a_cancel_and_a_seal_the_first_wins_and_the_job_ends_accordingly() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            let tenant = world.tenant("acme").await;
            let other = world.another().await;

            let job = world.running(&tenant).await;
            let by = actor("someone");
            let cancel = world.store.cancel(&job.workspace_id, &job.id, &by);
            let (cancelled, sealed) = meet(&world, &job, cancel, other.seal(&job.id, 1)).await;
            assert!(matches!(cancelled, Ok(Cancelled::Accepted(_))), "{cancelled:?}");
            assert_eq!(sealed.expect("an answer"), Seal::Cancelled);
            assert!(!world.finish(&job, JobState::Succeeded).await, "an accepted cancel is kept");
            assert!(world.finish(&job, JobState::Cancelled).await);

            let job = world.running(&tenant).await;
            let by = actor("someone");
            let cancel = other.cancel(&job.workspace_id, &job.id, &by);
            let (sealed, cancelled) = meet(&world, &job, world.store.seal(&job.id, 1), cancel).await;
            assert_eq!(sealed.expect("an answer"), Seal::Sealed);
            assert!(matches!(cancelled, Ok(Cancelled::Finishing)), "{cancelled:?}");
            assert!(world.finish(&job, JobState::Succeeded).await, "a refused cancel changes nothing");
        })
    });
}

/// Lines of a job's log that an execution wrote, and not the queue.
async fn written(world: &World, job: &JobRow) -> i64 {
    world.count(&format!("SELECT count(*) FROM job_events WHERE job_id = '{}' AND line LIKE '%\"log\"%'", job.id)).await
}

#[test]
fn events_that_come_while_their_job_is_swept_are_not_stored() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            let tenant = world.tenant("acme").await;
            let other = world.another().await;
            let job = world.running(&tenant).await;
            world.expire_lease(&job.id).await;
            let late = [(job.id.clone(), 1, Some(Phase::Running), (0..3).map(|n| event(job.next_seq + n)).collect())];
            // The sweep has changed the job and waits for its workspace; then the node returns with its events.
            let workspace = format!("SELECT 1 FROM workspaces WHERE id = '{}' FOR UPDATE", tenant.workspace);
            let held = world.hold(&workspace).await;
            let (swept, appended, ()) = tokio::join!(
                world.store.sweep_leases(10, &world.defaults),
                async {
                    world.until_blocked(1).await;
                    other.append_events(&late).await
                },
                async {
                    world.until_blocked(2).await;
                    held.rollback().await.expect("let go");
                }
            );
            assert_eq!(swept.expect("swept").jobs, std::slice::from_ref(&job.id));
            assert_eq!(appended.expect("an answer"), [(job.id.clone(), 1)], "said to be fenced off");
            assert_eq!(written(&world, &job).await, 0);
            assert_eq!(world.job(&job).await.phase, None);
            world.audit().await;
            // Nor later, whether the job waits or runs again; and the new execution counts on.
            assert_eq!(other.append_events(&late).await.expect("an answer"), [(job.id.clone(), 1)]);
            let next = world.claim_one().await;
            assert_eq!(other.append_events(&late).await.expect("an answer"), [(job.id.clone(), 1)]);
            let events = [(next.id.clone(), 2, None, vec![event(next.next_seq)])];
            assert!(other.append_events(&events).await.expect("an answer").is_empty());
            assert_eq!(written(&world, &job).await, 1);
            assert!(world.finish(&next, JobState::Succeeded).await);
        })
    });
}

#[test]
fn a_job_whose_events_are_being_stored_is_not_swept() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            let tenant = world.tenant("acme").await;
            let other = world.another().await;
            let mut jobs = [world.running(&tenant).await, world.running(&tenant).await];
            jobs.sort_by(|a, b| a.id.cmp(&b.id));
            let [swept, behind] = &jobs;
            world.expire_lease(&swept.id).await;
            // One transaction has the events of both, and waits for the second job's row with those of the first written.
            let batch: Vec<_> = jobs
                .iter()
                .map(|job| (job.id.clone(), 1, None, (0..3).map(|n| event(job.next_seq + n)).collect()))
                .collect();
            let held = world.hold(&lock_of(behind)).await;
            let (appended, early) = tokio::join!(other.append_events(&batch), async {
                world.until_blocked(1).await;
                let patience = Duration::from_secs(2);
                let early = tokio::time::timeout(patience, world.store.sweep_leases(10, &world.defaults)).await;
                held.rollback().await.expect("let go");
                early
            });
            assert!(appended.expect("an answer").is_empty(), "nothing was fenced off");
            assert!(early.expect("it does not wait").expect("swept").jobs.is_empty(), "the job shows a sign of life");
            let later = world.store.sweep_leases(10, &world.defaults).await.expect("swept");
            assert_eq!(later.jobs, std::slice::from_ref(&swept.id), "it had no heartbeat");
            assert_eq!(written(&world, swept).await, 3);
            world.audit().await;
        })
    });
}

#[test]
fn a_heartbeat_and_an_append_take_the_rows_of_jobs_in_one_order() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            let tenant = world.tenant("acme").await;
            let other = world.another().await;
            world.submit_many(&tenant.submissions(3)).await;
            let mut jobs: Vec<JobRow> = world.claim(3).await.into_iter().map(|claimed| claimed.job).collect();
            for round in 0..12 {
                // Newest first, and first come: neither may be what decides.
                jobs.sort_by(|a, b| if round % 2 == 0 { b.id.cmp(&a.id) } else { a.id.cmp(&b.id) });
                let batch: Vec<_> =
                    jobs.iter().map(|job| (job.id.clone(), 1, None, vec![event(job.next_seq + round)])).collect();
                // Rows also move within the table, and a plan that reads it from its start would see another order.
                world.sql(&format!("UPDATE jobs SET priority = priority WHERE id = '{}'", jobs[1].id)).await;
                let append = async { other.append_events(&batch).await.map(|fenced| fenced.len()) };
                let beat = async { world.store.heartbeat(&world.node, 60_000).await.map(|held| 3 - held.len()) };
                let mut middle: Vec<&JobRow> = jobs.iter().collect();
                middle.sort_by(|a, b| a.id.cmp(&b.id));
                let (one, two) = if round % 4 < 2 {
                    meet(&world, middle[1], append, beat).await
                } else {
                    meet(&world, middle[1], beat, append).await
                };
                assert_eq!((one.expect("no deadlock"), two.expect("no deadlock")), (0, 0));
            }
        })
    });
}

#[test]
fn heartbeats_appends_ends_and_sweeps_of_two_processes_never_deadlock() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            const JOBS: usize = 12;
            const ROUNDS: u64 = 100;
            let tenant = world.tenant("acme").await;
            let other = world.another().await;
            world.submit_many(&tenant.submissions(JOBS)).await;
            let mut jobs: Vec<JobRow> = world.claim(JOBS).await.into_iter().map(|claimed| claimed.job).collect();
            let beats = |store: Store| {
                let world = Arc::clone(&world);
                tokio::spawn(async move {
                    for _ in 0..ROUNDS {
                        store.heartbeat(&world.node, 60_000).await.expect("no deadlock");
                        let swept = store.sweep_leases(10, &world.defaults).await.expect("no deadlock");
                        assert!(swept.jobs.is_empty(), "all leases are kept");
                    }
                })
            };
            let tasks = [beats(world.store.clone()), beats(other.clone())];
            let expire = {
                let world = Arc::clone(&world);
                // Waiting jobs come and go beside them, which moves the counters.
                let tenant = tenant.clone();
                tokio::spawn(async move {
                    for _ in 0..ROUNDS / 4 {
                        let job = world.submit(tenant.submission()).await;
                        world.store.cancel(&job.workspace_id, &job.id, &actor("someone")).await.expect("no deadlock");
                    }
                })
            };
            for round in 0..ROUNDS {
                let turn = usize::try_from(round).expect("small") % JOBS;
                jobs.rotate_left(turn);
                let batch: Vec<_> =
                    jobs.iter().map(|job| (job.id.clone(), 1, None, vec![event(job.next_seq + round)])).collect();
                let writer = if round % 2 == 0 { &other } else { &world.store };
                assert!(writer.append_events(&batch).await.expect("no deadlock").is_empty());
            }
            for task in tasks {
                task.await.expect("no panic");
            }
            expire.await.expect("no panic");
            for job in &jobs {
                let last = end(JobState::Succeeded, job.next_seq + ROUNDS);
                assert!(world.store.finish(&job.id, 1, &last).await.expect("no deadlock"));
            }
        })
    });
}

/// A process that is stopped, or whose machine sleeps, in the middle of a transaction holds what it has locked.
#[test]
fn a_transaction_that_is_left_idle_is_ended_by_the_database_and_the_queue_goes_on() {
    run(Kind::Postgres, |world| {
        Box::pin(async move {
            let tenant = world.tenant("acme").await;
            let waiting = world.submit(tenant.submission()).await;
            let held = world.hold("SELECT 1 FROM instance FOR UPDATE").await;
            // A process of its own, as it were: it claims, and nobody runs it on once the database has given it the lock.
            let here = tokio::runtime::Handle::current();
            let frozen = tokio::task::spawn_blocking({
                let world = Arc::clone(&world);
                move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
                    let store = runtime.block_on(Store::open(&world.url)).expect("the same database");
                    let claim = {
                        let world = Arc::clone(&world);
                        let store = store.clone();
                        runtime.spawn(async move { store.claim(&world.node, 1, &world.defaults).await })
                    };
                    // Connections of the test itself are not made in a runtime that goes.
                    let blocked = here.spawn(async move { world.until_blocked(1).await });
                    runtime.block_on(blocked).expect("no panic");
                    (runtime, store, claim)
                }
            });
            let (runtime, store, claim) = frozen.await.expect("no panic");
            held.rollback().await.expect("let go");
            let began = std::time::Instant::now();
            let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND application_name = 'ade' AND state = 'idle in transaction'";
            while world.count(idle).await == 0 {
                assert!(began.elapsed() < Duration::from_secs(5), "it has the lock and does not go on");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Meanwhile everybody waits, and is told after a while; then all is as if it had not been.
            let mut refused = 0;
            let claimed = loop {
                match world.store.claim(&world.node, 1, &world.defaults).await {
                    Ok(claimed) => break claimed,
                    Err(error) => {
                        assert!(error.is_transient(), "{error:?}");
                        refused += 1;
                    }
                }
                assert!(began.elapsed() < Duration::from_secs(25), "the lock was let go");
            };
            assert!(began.elapsed() > Duration::from_secs(5), "there was something to wait for: {refused}");
            assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
            assert_eq!((claimed.len(), &claimed[0].job.id, claimed[0].job.execution), (1, &waiting.id, 1));
            // The other goes on, and learns that nothing came of it; with its next call it is connected again.
            let late = tokio::task::spawn_blocking({
                let world = Arc::clone(&world);
                move || {
                    let late = runtime.block_on(claim).expect("no panic");
                    let again = runtime.block_on(store.heartbeat(&world.node, 60_000));
                    runtime.block_on(store.close());
                    (late, again)
                }
            });
            let (late, again) = late.await.expect("no panic");
            assert!(late.expect_err("it was cut off").is_transient());
            assert_eq!(again.expect("connected again").len(), 1);
            assert!(world.finish(&claimed[0].job, JobState::Succeeded).await);
        })
    });
}
