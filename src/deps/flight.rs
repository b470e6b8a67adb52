//! One install at a time per key, whoever waits for it.
//!
//! The first job that needs a set starts its install as a task of its own; the others follow it, hear of its steps and share its
//! outcome. When nobody follows any more, the install is cancelled. Other processes on this machine are kept out by the lock of
//! the key.

use super::sets::{Lock, Record};
use super::{Deps, Place, Want, cancelled, install};
use crate::egress;
use crate::sandbox::Failure;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{broadcast, watch};

/// Steps that a follower may be behind; what it misses are lines of a log that it gets in the end.
const BEHIND: usize = 1024;

/// A step of an install: an event of the job, all of its text without secrets.
#[derive(Debug, Clone)]
pub enum Step {
    /// What the installer said.
    Event {
        /// `deps.resolve`, `deps.install` or `log`.
        event: &'static str,
        /// Details.
        detail: Map<String, Value>,
    },
    /// A connection of the installer has ended.
    Egress(egress::Record),
}

/// Why a set cannot be had.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The failure of the job.
    pub failure: Failure,
    /// What the installer said, without secrets.
    pub log: String,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, log: String::new() }
    }
}

/// A set that somebody uses.
#[derive(Debug)]
pub struct InUse {
    /// The set.
    pub record: Record,
    /// Whether this job's wish made it, rather than an earlier one's.
    pub installed: bool,
    /// How long the job waited for it, milliseconds.
    pub waited_ms: u64,
    _lock: Lock,
}

/// Whether it was installed now, rather than by another process meanwhile.
type Outcome = Result<bool, Failed>;

/// Installs that go on in this process.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<String, Weak<Flight>>>);

/// One install, as those see it who wait for it. Dropping the last one cancels it.
#[derive(Debug)]
struct Flight {
    steps: broadcast::Sender<Step>,
    outcome: watch::Receiver<Option<Outcome>>,
    cancel: watch::Sender<bool>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.cancel.send_replace(true);
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Deps::ensure`].
pub async fn ensure(
    deps: &Deps,
    place: &Place,
    want: Want,
    mut cancel: watch::Receiver<bool>,
    told: &mut (dyn FnMut(Step) + Send),
) -> Result<InUse, Failed> {
    let started = Instant::now();
    let key = key(deps, place, &want);
    let mut installed = false;
    // The set may go between its install and the look for it, when the budget is smaller than what is used at once.
    for _ in 0..3 {
        if let Some((record, lock)) = deps.sets.find(&place.docker, &want.workspace_id, &key).await? {
            let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Ok(InUse { record, installed, waited_ms, _lock: lock });
        }
        let (flight, first) = join(deps, place, &want, &key);
        let mut steps = flight.steps.subscribe();
        let mut ended = std::pin::pin!(ended(flight.outcome.clone()));
        let mut stopped = std::pin::pin!(stopped(&mut cancel));
        let outcome = loop {
            tokio::select! {
                biased;
                step = steps.recv() => match step {
                    Ok(step) => told(step),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break ended.await,
                },
                outcome = &mut ended => break outcome,
                () = &mut stopped => {
                    // With the last who waits, the install ends; the job has not ended before its container and its volume are gone.
                    if Arc::into_inner(flight).is_some() {
                        ended.await;
                    }
                    return Err(cancelled());
                }
            }
        };
        while let Ok(step) = steps.try_recv() {
            told(step);
        }
        match outcome {
            Some(Ok(made)) => installed = first && made,
            Some(Err(failed)) => return Err(failed),
            None => return Err(Failed::from(broken_down())),
        }
    }
    Err(Failed::from(Failure::new(
        crate::sandbox::FailureKind::HostIo,
        "a dependency set was removed as soon as it was installed, three times: raise ADE_DEPS_BUDGET_MB",
    )))
}

/// The outcome of a flight; none when its task broke down.
async fn ended(mut outcome: watch::Receiver<Option<Outcome>>) -> Option<Outcome> {
    outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
}

/// Completes when a job is cancelled; never when nobody can do that any more.
async fn stopped(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn broken_down() -> Failure {
    Failure::new(crate::sandbox::FailureKind::HostIo, "an install broke down inside the engine; see its log")
}

/// The install of a key that goes on, or a new one; whether it is new.
fn join(deps: &Deps, place: &Place, want: &Want, key: &str) -> (Arc<Flight>, bool) {
    // A job that may use the network does not share the failure of one that may not.
    let name = format!("{key}-{}", want.network.install.allowed);
    let mut flights = deps.flights.lock();
    flights.retain(|_, flight| flight.strong_count() > 0);
    let running = flights.get(&name).and_then(Weak::upgrade).filter(|flight| flight.outcome.borrow().is_none());
    if let Some(flight) = running {
        return (flight, false);
    }
    let (steps, _) = broadcast::channel(BEHIND);
    let (ended, outcome) = watch::channel(None);
    let (cancel, cancelled) = watch::channel(false);
    let flight = Arc::new(Flight { steps: steps.clone(), outcome, cancel });
    flights.insert(name, Arc::downgrade(&flight));
    drop(flights);
    let (deps, place, want, key) = (deps.clone(), place.clone(), want.clone(), key.to_owned());
    tokio::spawn(async move {
        let outcome = fly(&deps, &place, &want, &key, cancelled, &steps).await;
        ended.send_replace(Some(outcome));
    });
    (flight, true)
}

async fn fly(
    deps: &Deps,
    place: &Place,
    want: &Want,
    key: &str,
    cancel: watch::Receiver<bool>,
    steps: &broadcast::Sender<Step>,
) -> Outcome {
    let mut nobody = cancel.clone();
    let _lock = tokio::select! {
        lock = deps.sets.lock(&want.workspace_id, key) => lock?,
        () = stopped(&mut nobody) => return Err(cancelled()),
    };
    if deps.sets.whole(&place.docker, &want.workspace_id, key).await?.is_some() {
        return Ok(false);
    }
    install::install(deps, place, want, key, cancel, steps).await?;
    deps.sets.evict(&place.docker).await;
    Ok(true)
}

/// What a set is found by. The lock is not known before the install; the set's id says it.
fn key(deps: &Deps, place: &Place, want: &Want) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    part("ade.deps/1");
    part(&want.workspace_id);
    for asked in &want.requirements.list {
        part(&asked.text);
        part(&asked.hashes.join(" "));
    }
    part(&place.image);
    part(&deps.index.fingerprint());
    part(if want.source_builds { "source" } else { "wheels" });
    format!("{:x}", hash.finalize())
}
