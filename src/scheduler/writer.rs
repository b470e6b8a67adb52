//! Events on their way to the database: whatever has gathered while one transaction ran goes into the next.

use crate::ids::JobId;
use crate::queue::{Phase, Signals};
use crate::store::{Store, StoredEvent};
use crate::telemetry::Metrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Entries of one transaction.
const BATCH: usize = 1024;

enum Entry {
    Event { job: JobId, execution: u32, phase: Option<Phase>, event: Option<StoredEvent> },
    Flush(oneshot::Sender<()>),
}

/// Writes the events of all executions of this process.
#[derive(Debug, Clone)]
pub struct EventWriter {
    // Unbounded, and yet bounded: the sandbox lets one job send 16 MiB of events at most, and a node runs few jobs.
    sender: mpsc::UnboundedSender<Entry>,
}

impl EventWriter {
    /// Starts the writer. `fenced` is told of executions that are no longer their job's.
    pub fn start(
        store: Store,
        signals: Arc<Signals>,
        metrics: Metrics,
        fenced: impl Fn(&JobId, u32) + Send + Sync + 'static,
    ) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut entries = Vec::new();
            while receiver.recv_many(&mut entries, BATCH).await > 0 {
                let mut flushed = Vec::new();
                let mut batch: Vec<(JobId, u32, Option<Phase>, Vec<StoredEvent>)> = Vec::new();
                let mut places: HashMap<(JobId, u32), usize> = HashMap::new();
                for entry in entries.drain(..) {
                    match entry {
                        Entry::Flush(done) => flushed.push(done),
                        Entry::Event { job, execution, phase, event } => {
                            let place = *places.entry((job.clone(), execution)).or_insert_with(|| {
                                batch.push((job, execution, None, Vec::new()));
                                batch.len() - 1
                            });
                            if let Some((_, _, last_phase, events)) = batch.get_mut(place) {
                                *last_phase = phase.or(*last_phase);
                                events.extend(event);
                            }
                        }
                    }
                }
                if !batch.is_empty() {
                    let started = Instant::now();
                    write(&store, &signals, &batch, &fenced).await;
                    metrics.store("append_events", started.elapsed());
                }
                for done in flushed {
                    done.send(()).ok();
                }
            }
        });
        Self { sender }
    }

    /// Hands an event over.
    pub fn event(&self, job: &JobId, execution: u32, event: StoredEvent) {
        let entry = Entry::Event { job: job.clone(), execution, phase: None, event: Some(event) };
        self.sender.send(entry).ok();
    }

    /// Notes what an execution is doing.
    pub fn phase(&self, job: &JobId, execution: u32, phase: Phase) {
        let entry = Entry::Event { job: job.clone(), execution, phase: Some(phase), event: None };
        self.sender.send(entry).ok();
    }

    /// Completes when all that was handed over before is stored.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        self.sender.send(Entry::Flush(done)).ok();
        wait.await.ok();
    }
}

async fn write(
    store: &Store,
    signals: &Signals,
    batch: &[(JobId, u32, Option<Phase>, Vec<StoredEvent>)],
    fenced: &(impl Fn(&JobId, u32) + Sync),
) {
    let mut pause = Duration::from_millis(50);
    loop {
        match store.append_events(batch).await {
            Ok(lost) => {
                for (job, execution) in &lost {
                    fenced(job, *execution);
                }
                break;
            }
            // Events wait for the database to come back; their jobs go on.
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "events wait for the database");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(error) => {
                tracing::error!(%error, "events were lost");
                break;
            }
        }
    }
    for (job, ..) in batch {
        signals.changed(job);
    }
}
