//! Submissions in batches: as many as wait go into one transaction, so that many clients share one write to the disk, and one
//! client waits for nobody.

use crate::ids::WorkspaceId;
use crate::store::{Admitted, Defaults, Refused, Scope, Store, StoreError, Submission, Totals};
use crate::telemetry::Metrics;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Submissions of one transaction.
const BATCH: usize = 128;
/// Submissions that wait for a transaction; further callers wait for a place.
const WAITING: usize = 1024;
/// What the drain rate is measured over, ms.
const WINDOW_MS: i64 = 60_000;
/// Workspaces whose drain rate is kept.
const MAX_WORKSPACES: usize = 10_000;
/// Bounds of `Retry-After`, seconds.
const RETRY_AFTER: std::ops::RangeInclusive<i64> = 1..=300;

type Answer = Result<Result<Admitted, Refused>, StoreError>;

/// The door of the queue.
#[derive(Debug, Clone)]
pub struct Admissions {
    sender: mpsc::Sender<(Submission, oneshot::Sender<Answer>)>,
    drain: Arc<Mutex<Drain>>,
}

impl Admissions {
    /// Opens the door. `admitted` is told of every batch in which jobs were taken.
    pub fn start(store: Store, defaults: Defaults, metrics: Metrics, admitted: impl Fn() + Send + 'static) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Submission, oneshot::Sender<Answer>)>(WAITING);
        let drain = Arc::new(Mutex::new(Drain::default()));
        let measured = Arc::clone(&drain);
        tokio::spawn(async move {
            let mut waiting = Vec::with_capacity(BATCH);
            while receiver.recv_many(&mut waiting, BATCH).await > 0 {
                let (batch, callers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
                let started = Instant::now();
                let submitted = store.submit(&batch, &defaults).await;
                metrics.store("submit", started.elapsed());
                match submitted {
                    Ok((answers, totals)) => {
                        measured.lock().unwrap_or_else(PoisonError::into_inner).note(&totals);
                        if answers.iter().any(|answer| answer.as_ref().is_ok_and(|admitted| !admitted.replayed)) {
                            admitted();
                        }
                        for (caller, answer) in callers.into_iter().zip(answers) {
                            // Whoever has gone meanwhile finds the job in the list.
                            caller.send(Ok(answer)).ok();
                        }
                    }
                    Err(error) => {
                        for caller in callers {
                            caller.send(Err(error.clone())).ok();
                        }
                    }
                }
            }
        });
        Self { sender, drain }
    }

    /// Submits one job.
    ///
    /// # Errors
    /// The database's; nothing was stored then, nor when it is refused.
    pub async fn submit(&self, submission: Submission) -> Answer {
        let gone = || StoreError::Unavailable("the queue has stopped".into());
        let (answer, answered) = oneshot::channel();
        self.sender.send((submission, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Seconds until a place should be free, by the drain rate of the last minute.
    #[must_use]
    pub fn retry_after(&self, scope: Scope, workspace: &WorkspaceId) -> i64 {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner).retry_after(scope, workspace)
    }
}

/// How fast jobs leave the queue, from the counters that every batch of submissions reads anyway: right for all nodes
/// together, whoever made the claims.
#[derive(Debug, Default)]
pub struct Drain {
    instance: Samples,
    workspaces: HashMap<WorkspaceId, Samples>,
}

impl Drain {
    /// Notes what a batch saw.
    pub fn note(&mut self, totals: &Totals) {
        self.instance.note(totals.now, totals.claimed);
        for (workspace, claimed) in &totals.workspaces {
            if self.workspaces.len() < MAX_WORKSPACES || self.workspaces.contains_key(workspace) {
                self.workspaces.entry(workspace.clone()).or_default().note(totals.now, *claimed);
            }
        }
        if self.workspaces.len() >= MAX_WORKSPACES {
            self.workspaces.retain(|_, samples| samples.newest() > totals.now - WINDOW_MS);
        }
    }

    /// Seconds until one more job should have left; the longest that is ever said when none has.
    #[must_use]
    pub fn retry_after(&self, scope: Scope, workspace: &WorkspaceId) -> i64 {
        let samples = match scope {
            Scope::Instance => Some(&self.instance),
            Scope::Workspace => self.workspaces.get(workspace),
        };
        samples
            .and_then(Samples::ms_per_claim)
            .map_or(60, |ms| (ms + 999) / 1000)
            .clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end())
    }
}

/// (time, claims so far), at most one a second.
#[derive(Debug, Default)]
struct Samples(VecDeque<(i64, i64)>);

impl Samples {
    fn note(&mut self, now: i64, claimed: i64) {
        let several = self.0.len() > 1;
        match self.0.back_mut() {
            Some(last) if several && now - last.0 < 1000 => last.1 = claimed,
            _ => self.0.push_back((now, claimed)),
        }
        while self.0.len() > 2 && self.0.front().is_some_and(|first| first.0 < now - WINDOW_MS) {
            self.0.pop_front();
        }
    }

    fn newest(&self) -> i64 {
        self.0.back().map_or(0, |last| last.0)
    }

    fn ms_per_claim(&self) -> Option<i64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let claims = last.1 - first.1;
        (claims > 0).then(|| (last.0 - first.0).max(1) / claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(now: i64, claimed: i64) -> Totals {
        Totals { now, claimed, workspaces: Vec::new() }
    }

    #[test]
    fn retry_after_follows_the_measured_drain() {
        let workspace = WorkspaceId::generate();
        let mut drain = Drain::default();
        drain.note(&totals(0, 0));
        assert_eq!(drain.retry_after(Scope::Instance, &workspace), 60, "nothing is known yet");
        drain.note(&totals(10_000, 2));
        assert_eq!(drain.retry_after(Scope::Instance, &workspace), 5);
        drain.note(&totals(20_000, 400));
        assert_eq!(drain.retry_after(Scope::Instance, &workspace), 1);
        drain.note(&totals(200_000, 401));
        drain.note(&totals(400_000, 401));
        assert_eq!(drain.retry_after(Scope::Instance, &workspace), 60, "nothing moves");
    }
}
