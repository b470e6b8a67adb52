//! Who waits for a job, or for work, is told when there is something new. In memory; between processes by way of the database.

use crate::ids::JobId;
use crate::sandbox::protocol::Progress;
use crate::store::Store;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// The hint that jobs were submitted, or that the queue's settings changed.
const WORK: &str = "work";
/// Hints of this long go out together, each once.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// Job ids of one notification; PostgreSQL takes 8,000 bytes.
const IDS_PER_HINT: usize = 200;

/// What is new of a job.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// Counts changes of its record or its events.
    pub changes: u64,
    /// Rows done, while it runs in this process; never stored.
    pub progress: Option<Progress>,
}

/// The switchboard of a process.
#[derive(Debug)]
pub struct Signals {
    jobs: Mutex<HashMap<JobId, watch::Sender<News>>>,
    work: Notify,
    /// Jobs that other processes said have changed.
    elsewhere: Notify,
    outbox: Option<mpsc::UnboundedSender<String>>,
}

impl Signals {
    /// Starts listening to, and telling, the other processes on this database.
    #[must_use]
    pub fn start(store: &Store) -> Arc<Self> {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let signals = Arc::new(Self {
            jobs: Mutex::default(),
            work: Notify::new(),
            elsewhere: Notify::new(),
            outbox: store.is_shared().then_some(outbox),
        });
        if store.is_shared() {
            tokio::spawn(tell(store.clone(), inbox));
            tokio::spawn(listen(store.clone(), Arc::downgrade(&signals)));
        }
        signals
    }

    /// Follows a job, from now on.
    #[must_use]
    pub fn watch(self: &Arc<Self>, job: &JobId) -> Watch {
        let news = self.lock().entry(job.clone()).or_insert_with(|| watch::Sender::new(News::default())).subscribe();
        Watch { job: job.clone(), news: Some(news), signals: Arc::clone(self) }
    }

    /// Says that a job's record or events have changed.
    pub fn changed(&self, job: &JobId) {
        self.changed_here(job);
        if let Some(outbox) = &self.outbox {
            outbox.send(job.to_string()).ok();
        }
    }

    /// Says how far a job is.
    pub fn progress(&self, job: &JobId, progress: &Progress) {
        if let Some(sender) = self.lock().get(job) {
            sender.send_modify(|news| news.progress = Some(progress.clone()));
        }
    }

    /// Says that there may be work: jobs were submitted, or a setting or a pause changed.
    pub fn work(&self) {
        self.work.notify_one();
        if let Some(outbox) = &self.outbox {
            outbox.send(WORK.to_owned()).ok();
        }
    }

    /// Completes when there may be work.
    pub async fn worked(&self) {
        self.work.notified().await;
    }

    /// Completes when another process changed something that may concern a job of this one.
    pub async fn elsewhere(&self) {
        self.elsewhere.notified().await;
    }

    /// Followers right now.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.lock().values().map(watch::Sender::receiver_count).sum()
    }

    fn changed_here(&self, job: &JobId) {
        if let Some(sender) = self.lock().get(job) {
            sender.send_modify(|news| {
                news.changes += 1;
                news.progress = None;
            });
        }
    }

    fn everything_may_have_changed(&self) {
        for sender in self.lock().values() {
            sender.send_modify(|news| news.changes += 1);
        }
        self.work.notify_one();
        self.elsewhere.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<News>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A follower of one job.
#[derive(Debug)]
pub struct Watch {
    job: JobId,
    news: Option<watch::Receiver<News>>,
    signals: Arc<Signals>,
}

impl Watch {
    /// Completes when there is news since the last call, with it.
    pub async fn next(&mut self) -> News {
        if let Some(news) = &mut self.news
            && news.changed().await.is_ok()
        {
            return news.borrow_and_update().clone();
        }
        // Not reached: the sender lives as long as a follower does.
        std::future::pending().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut jobs = self.signals.lock();
        self.news = None;
        if jobs.get(&self.job).is_some_and(|sender| sender.receiver_count() == 0) {
            jobs.remove(&self.job);
        }
    }
}

async fn tell(store: Store, mut inbox: mpsc::UnboundedReceiver<String>) {
    let mut hints = Vec::new();
    while inbox.recv_many(&mut hints, 4096).await > 0 {
        let unique: BTreeSet<String> = hints.drain(..).collect();
        let unique: Vec<String> = unique.into_iter().collect();
        for hints in unique.chunks(IDS_PER_HINT) {
            if let Err(error) = store.tell(&hints.join(",")).await {
                // The others look by themselves after a while.
                tracing::debug!(%error, "other processes were not told");
            }
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

async fn listen(store: Store, signals: std::sync::Weak<Signals>) {
    loop {
        if let Ok(Some(mut listener)) = store.listen().await {
            loop {
                let hint = listener.next().await;
                let Some(signals) = signals.upgrade() else { return };
                match hint {
                    Ok(Some(hints)) => {
                        for hint in hints.split(',') {
                            match hint.parse::<JobId>() {
                                Ok(job) => signals.changed_here(&job),
                                Err(_) => signals.work.notify_one(),
                            }
                        }
                        signals.elsewhere.notify_one();
                    }
                    Ok(None) => signals.everything_may_have_changed(),
                    Err(error) => {
                        tracing::warn!(%error, "listening to other processes is interrupted");
                        break;
                    }
                }
            }
        }
        if signals.upgrade().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_hear_of_their_job_only_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}/x.db", folder.path().display())).await.unwrap();
        let signals = Signals::start(&store);
        let (mine, other) = (JobId::generate(), JobId::generate());
        let mut watch = signals.watch(&mine);
        signals.changed(&other);
        assert!(tokio::time::timeout(Duration::from_millis(20), watch.next()).await.is_err());
        signals.changed(&mine);
        assert_eq!(watch.next().await.changes, 1);
        assert_eq!(signals.followers(), 1);
        drop(watch);
        assert!(signals.lock().is_empty());
    }
}
