//! Thousands of random operations, against a model that is simple enough to be believed.

use crate::harness::{Tenant, World, actor, end, event};
use ade::ids::{ConfigId, JobId, WorkspaceId};
use ade::queue::JobState;
use ade::store::{Cancelled, JobRow, Refused, Requeue, Seal, Submission, WorkspaceChange};
use std::collections::HashMap;

const STEPS: usize = 2_500;
const WORKSPACE_RUNNING: i64 = 6;
const LANE_RUNNING: i64 = 2;
const WORKSPACE_QUEUED: usize = 12;

/// splitmix64, seeded: a failure can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).expect("small")
    }
}

#[derive(Debug, Clone)]
struct Entry {
    row: JobRow,
    state: JobState,
    execution: u32,
    losses: i64,
    sealed: bool,
}

#[derive(Default)]
struct Model {
    jobs: Vec<Entry>,
    by_id: HashMap<JobId, usize>,
}

impl Model {
    fn count(&self, of: impl Fn(&Entry) -> bool) -> usize {
        self.jobs.iter().filter(|entry| of(entry)).count()
    }

    fn waiting(&self, workspace: &WorkspaceId) -> usize {
        self.count(|entry| entry.row.workspace_id == *workspace && entry.state == JobState::Queued)
    }

    fn twin(&self, submission: &Submission) -> Option<&Entry> {
        let live = [JobState::Queued, JobState::Running, JobState::Succeeded];
        self.jobs.iter().find(|entry| {
            entry.row.version_id == submission.version_id
                && entry.row.input_hash == submission.input_hash
                && live.contains(&entry.state)
        })
    }

    fn runs(entry: &Entry) -> bool {
        matches!(entry.state, JobState::Running | JobState::Cancelling)
    }

    /// How many jobs could be handed out: all that wait, within the bounds of their lanes and workspaces.
    fn claimable(&self, lanes: &[(Tenant, Option<i64>)]) -> usize {
        let mut room: HashMap<&WorkspaceId, i64> = HashMap::new();
        for (tenant, _) in lanes {
            let running = self.count(|entry| entry.row.workspace_id == tenant.workspace && Self::runs(entry));
            room.insert(&tenant.workspace, WORKSPACE_RUNNING - i64::try_from(running).expect("small"));
        }
        let mut total = 0;
        for (tenant, bound) in lanes {
            let of = |config: &ConfigId, entry: &Entry| entry.row.config_id == *config;
            let waiting = self.count(|entry| of(&tenant.config, entry) && entry.state == JobState::Queued);
            let running = self.count(|entry| of(&tenant.config, entry) && Self::runs(entry));
            let running = i64::try_from(running).expect("small");
            let lane = bound.map_or(i64::MAX, |bound| bound - running).min(i64::try_from(waiting).expect("small"));
            let room = room.get_mut(&tenant.workspace).expect("counted above");
            let taken = lane.clamp(0, (*room).max(0));
            *room -= taken;
            total += usize::try_from(taken).expect("not negative");
        }
        total
    }

    /// An execution that did not end by itself.
    fn lose(entry: &mut Entry, counts: bool, max: i64) -> JobState {
        entry.losses += i64::from(counts);
        entry.state = match entry.state {
            JobState::Cancelling => JobState::Cancelled,
            _ if counts && entry.losses >= max => JobState::Failed,
            _ => JobState::Queued,
        };
        entry.state
    }
}

async fn play(world: &World, seed: u64) {
    let mut dice = Dice(seed);
    let mut defaults = world.defaults;
    defaults.workspace_max_running = WORKSPACE_RUNNING;
    let mut lanes = Vec::new();
    for slug in ["a", "b", "c"] {
        let tenant = world.weighted(slug, 100 + 50 * i64::try_from(lanes.len()).expect("small")).await;
        let bound = Some(Some(i64::try_from(WORKSPACE_QUEUED).expect("small")));
        world.change(&tenant, WorkspaceChange { max_queued: bound, ..WorkspaceChange::default() }).await;
        let (config, version) = world.config(&tenant.workspace, "narrow").await;
        let narrow = Tenant { config, version, ..tenant.clone() };
        world
            .store
            .bound_config(&narrow.workspace, &narrow.config, Some(LANE_RUNNING), &actor("root"))
            .await
            .expect("bounded");
        lanes.push((tenant, None));
        lanes.push((narrow, Some(LANE_RUNNING)));
    }
    let mut model = Model::default();
    for step in 0..STEPS {
        let at = (!model.jobs.is_empty()).then(|| {
            // Mostly among the latest, which are alive.
            let recent = model.jobs.len().min(70);
            model.jobs.len() - 1 - dice.roll(recent)
        });
        match (dice.roll(12), at) {
            (0..3, _) | (_, None) => {
                let (tenant, _) = &lanes[dice.roll(lanes.len())];
                let mut submission = tenant.submission();
                if dice.roll(3) == 0
                    && let Some(at) = at
                {
                    submission.input_hash = model.jobs[at].row.input_hash.clone();
                }
                let twin = model.twin(&submission).map(|entry| entry.row.id.clone());
                let full = model.waiting(&tenant.workspace) >= WORKSPACE_QUEUED;
                match world.try_submit(submission).await {
                    Ok(admitted) if admitted.replayed => assert_eq!(Some(admitted.job.id), twin, "step {step}"),
                    Ok(admitted) => {
                        assert!(twin.is_none() && !full, "step {step}");
                        model.by_id.insert(admitted.job.id.clone(), model.jobs.len());
                        let row = admitted.job;
                        model.jobs.push(Entry { row, state: JobState::Queued, execution: 0, losses: 0, sealed: false });
                    }
                    Err(Refused::Full { .. }) => assert!(full && twin.is_none(), "step {step}"),
                    Err(other) => panic!("step {step}: {other:?}"),
                }
            }
            (3..5, _) => {
                let slots = 1 + dice.roll(4);
                let possible = model.claimable(&lanes).min(slots);
                let claimed = world.store.claim(&world.node, slots, &defaults).await.expect("a claim");
                assert_eq!(claimed.len(), possible, "step {step}: all that could be, and no more");
                for claimed in claimed {
                    let entry = &mut model.jobs[model.by_id[&claimed.job.id]];
                    assert_eq!(entry.state, JobState::Queued, "step {step}");
                    (entry.state, entry.execution, entry.sealed) = (JobState::Running, entry.execution + 1, false);
                    assert_eq!(claimed.job.execution, entry.execution, "step {step}");
                }
            }
            (choice, Some(at)) => {
                let entry = &mut model.jobs[at];
                let stale = entry.execution > 0 && dice.roll(4) == 0;
                let execution = if stale { entry.execution - 1 } else { entry.execution };
                let holds = !stale && Model::runs(entry);
                let (id, next) = (entry.row.id.clone(), world.job(&entry.row).await.next_seq);
                match choice {
                    5 | 6 => {
                        let state = [JobState::Succeeded, JobState::Failed, JobState::Cancelled][dice.roll(3)];
                        let allowed = holds && (entry.state == JobState::Running || state == JobState::Cancelled);
                        let done = world.store.finish(&id, execution, &end(state, next)).await.expect("an answer");
                        assert_eq!(done, allowed, "step {step}: {entry:?} to {state}");
                        if done {
                            entry.state = state;
                        }
                    }
                    7 => {
                        let expected = match (holds, entry.state) {
                            (false, _) => Seal::Fenced,
                            (true, JobState::Cancelling) => Seal::Cancelled,
                            (true, _) => Seal::Sealed,
                        };
                        assert_eq!(world.store.seal(&id, execution).await.expect("an answer"), expected, "step {step}");
                        entry.sealed |= holds;
                    }
                    8 => {
                        let answer = world
                            .store
                            .cancel(&entry.row.workspace_id, &id, &actor("someone"))
                            .await
                            .expect("an answer");
                        let fits = match entry.state {
                            JobState::Queued | JobState::Cancelling | JobState::Cancelled => {
                                matches!(answer, Cancelled::Accepted(_))
                            }
                            JobState::Running if entry.sealed => matches!(answer, Cancelled::Finishing),
                            JobState::Running => matches!(answer, Cancelled::Accepted(_)),
                            ended => matches!(answer, Cancelled::Finished(state) if state == ended),
                        };
                        assert!(fits, "step {step}: {entry:?}: {answer:?}");
                        match entry.state {
                            JobState::Queued => entry.state = JobState::Cancelled,
                            JobState::Running if !entry.sealed => entry.state = JobState::Cancelling,
                            _ => {}
                        }
                    }
                    9 => {
                        let why = if dice.roll(2) == 0 { Requeue::Lost } else { Requeue::Drained };
                        let answer = world.store.requeue(&id, execution, &why, &defaults).await.expect("an answer");
                        let expected = holds.then(|| Model::lose(entry, why == Requeue::Lost, defaults.max_losses));
                        assert_eq!(answer, expected, "step {step}");
                    }
                    10 => {
                        let batch = [(id.clone(), execution, None, vec![event(next), event(next + 1)])];
                        let fenced = world.store.append_events(&batch).await.expect("an answer");
                        assert_eq!(fenced.is_empty(), holds, "step {step}: {entry:?}");
                    }
                    _ => {
                        if Model::runs(entry) {
                            world.expire_lease(&id).await;
                        }
                        let swept = world.store.sweep_leases(10, &defaults).await.expect("swept");
                        let expected = Model::runs(entry).then(|| Model::lose(entry, true, defaults.max_losses));
                        assert_eq!(swept.jobs.len(), usize::from(expected.is_some()), "step {step}");
                        assert_eq!(swept.requeued, usize::from(expected == Some(JobState::Queued)), "step {step}");
                    }
                }
                assert_eq!(world.state(&entry.row).await, entry.state, "step {step}");
            }
        }
        if step % 250 == 0 {
            world.audit().await;
        }
    }
    for entry in &model.jobs {
        let row = world.job(&entry.row).await;
        assert_eq!((row.state, row.execution), (entry.state, entry.execution), "{}", row.id);
    }
    let ends = [JobState::Succeeded, JobState::Failed, JobState::Cancelled];
    let reached = ends.map(|end| model.count(|entry| entry.state == end));
    assert!(reached.iter().all(|count| *count > 5), "the dice reached every end: {reached:?}");
}

on_both! {
    async fn random_operations_do_what_a_simple_model_says(world) {
        play(&world, 0xade).await;
    }
}
