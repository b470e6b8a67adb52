//! Parked containers: started, waiting for a job, each used for one and then destroyed.
//!
//! Nearly all of what a container costs is paid before its supervisor says `READY`, and up to there nothing about it depends on
//! who it is for. So some are started ahead. A parked container has no tenant's bytes in it, no network and no secrets; what it
//! may have is the dependency set that containers of its [`Class`] mount.
//!
//! How many wait is decided by what was asked for: as many of a class as began in the busiest second of the last
//! minutes, within the bounds of [`PoolSize`]. They are started one after the other, and as long as some are parked each waits a
//! little for a moment in which no job runs.
//!
//! A job that finds none has one made, and takes the first that is ready after those who waited before it: its own, one that was
//! being made to be parked, or one made for a job that had another by then. So no job is passed by a later one, and no container
//! that was begun is wasted.

use super::container::{Opened, open};
use super::ledger::Ledger;
use super::lend;
use super::outcome::Failure;
use super::protocol::VERSION;
use super::spec::{Class, ContainerSpec, label, private_uid};
use bollard::Docker;
use futures_util::FutureExt;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use ulid::Ulid;

/// A parked container of this age is replaced by a new one.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// How long a busy second counts; at most twice this.
const DEMAND_WINDOW: Duration = Duration::from_secs(5 * 60);
/// How long a refill waits for a moment in which no job runs, as long as others are parked: a small job is over sooner.
const YIELD: Duration = Duration::from_millis(100);
/// How often parked containers are looked at while nobody asks for one.
const LOOK: Duration = Duration::from_secs(5);
/// No container of a class is started ahead for so long after one could not be started.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// How much may be parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// Of the class that most jobs have, whether anybody has asked or not.
    pub floor: usize,
    /// In all.
    pub most: usize,
    /// In all, counted by the memory that a job may use in each, MiB.
    pub memory_mb: u64,
}

impl PoolSize {
    /// Nothing is parked.
    pub const NONE: Self = Self { floor: 0, most: 0, memory_mb: 0 };
}

/// What happens in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooled {
    /// A container of this age was there for a job.
    Hit(Duration),
    /// None was there, so that one is being made.
    Missed,
    /// One was there and could not be used; another was made.
    Failed,
    /// A parked container had read its job after this time.
    Adopted(Duration),
    /// One was parked, this long after its start.
    Parked(Duration),
    /// One was removed without having been used.
    Retired(Retired),
}

/// Why a parked container is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// It has waited long enough.
    Old,
    /// It has ended, or said what it must not say.
    Unhealthy,
    /// There is less demand now, or room is needed for another class.
    Surplus,
}

impl Retired {
    /// As the metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Unhealthy => "unhealthy",
            Self::Surplus => "surplus",
        }
    }
}

/// Hears of what happens.
pub type Watcher = Arc<dyn Fn(Pooled) + Send + Sync>;

/// The containers of a node: makes them, keeps some ready, removes them. Cheap to clone; what is parked goes with the last clone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("size", &self.0.parts.size).finish_non_exhaustive()
    }
}

/// What a pool is made of.
pub struct PoolParts {
    /// The engine.
    pub docker: Docker,
    /// Every container of this process.
    pub ledger: Ledger,
    /// How much may be parked.
    pub size: PoolSize,
    /// The class that the floor is of.
    pub usual: Option<Class>,
    /// Labels of parked containers: whose they are.
    pub labels: HashMap<String, String>,
    /// The longest that a container is wanted after it was adopted.
    pub longest_job: Duration,
    /// Hears of what happens.
    pub watcher: Watcher,
    /// Who has parked containers, for one who has none.
    pub lender: Option<Lender>,
}

/// A service on this machine that may lend parked containers.
#[derive(Debug, Clone)]
pub struct Lender {
    /// Its socket; nothing is lent where there is none.
    pub socket: PathBuf,
    /// The engine of the command, as it is set; nothing is lent of another.
    pub docker_host: Option<String>,
}

/// A container for a job.
pub(super) enum Adopted {
    /// It was there.
    Parked(Opened),
    /// It was made while the job waited.
    New(Opened),
}

struct Shared {
    parts: PoolParts,
    shelves: Mutex<Shelves>,
    wanted: Arc<Notify>,
    closing: watch::Sender<bool>,
    /// Jobs that run.
    busy: watch::Sender<usize>,
}

#[derive(Default)]
struct Shelves {
    of: HashMap<Class, Shelf>,
    closed: bool,
}

/// Containers of one class, and who asked for some.
struct Shelf {
    parked: VecDeque<Parked>,
    /// Jobs that wait for a container.
    waiting: VecDeque<oneshot::Sender<Opened>>,
    /// Containers that are being made: one for each of these, and those to be parked.
    coming: usize,
    demand: Demand,
    not_before: Option<Instant>,
}

struct Parked {
    opened: Opened,
    since: Instant,
}

impl Parked {
    /// Whether it still waits and says nothing.
    fn is_sound(&mut self) -> bool {
        self.opened.wire.next().now_or_never().is_none()
    }
}

/// How many containers of a class were asked for in the busiest second of late.
struct Demand {
    second: Instant,
    in_second: usize,
    window: Instant,
    peak: usize,
    peak_before: usize,
    last: Instant,
}

impl Demand {
    const fn new(now: Instant) -> Self {
        Self { second: now, in_second: 0, window: now, peak: 0, peak_before: 0, last: now }
    }

    fn asked(&mut self, now: Instant) {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.in_second) = (now, 0);
        }
        self.in_second += 1;
        self.turn(now);
        self.peak = self.peak.max(self.in_second);
        self.last = now;
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.duration_since(self.window);
        if passed >= DEMAND_WINDOW {
            self.peak_before = if passed >= 2 * DEMAND_WINDOW { 0 } else { self.peak };
            (self.window, self.peak) = (now, 0);
        }
    }

    fn now(&mut self, now: Instant) -> usize {
        self.turn(now);
        self.peak.max(self.peak_before)
    }
}

impl Pool {
    /// A pool that begins to fill at once. Needs a runtime.
    #[must_use]
    pub fn start(parts: PoolParts) -> Self {
        let (closing, wanted) = (watch::Sender::new(false), Arc::default());
        let busy = watch::Sender::new(0);
        let shared = Arc::new(Shared { parts, shelves: Mutex::default(), wanted, closing, busy });
        if shared.parts.size.most > 0 {
            let refilling = refill(Arc::downgrade(&shared), Arc::clone(&shared.wanted));
            shared.parts.ledger.spawn(refilling);
        }
        Self(shared)
    }

    /// A pool in which nothing is ever parked, for a command; it takes what a service on this machine lends, if one is named.
    #[must_use]
    pub fn of_a_command(docker: &Docker, lender: Option<Lender>) -> Self {
        Self::start(PoolParts {
            docker: docker.clone(),
            ledger: Ledger::in_foreground(),
            size: PoolSize::NONE,
            usual: None,
            labels: HashMap::new(),
            longest_job: Duration::ZERO,
            watcher: Arc::new(|_| {}),
            lender,
        })
    }

    /// The engine.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.0.parts.docker
    }

    /// How many are parked.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.0.shelves().of.values().map(|shelf| shelf.parked.len()).sum()
    }

    /// Removes what is parked, and parks nothing any more.
    pub fn close(&self) {
        let of = {
            let mut shelves = self.0.shelves();
            shelves.closed = true;
            std::mem::take(&mut shelves.of)
        };
        drop(of);
        self.0.closing.send_replace(true);
        self.0.wanted.notify_one();
    }

    /// Takes a container of a class that was made for no job in particular: a parked one, or else the next that is ready. Who takes it
    /// destroys it. `None` when this pool has no such containers, or the one that was being made did not come up.
    pub(super) async fn adopt(&self, class: &Class, name: &str) -> Option<Adopted> {
        if !class.may_park() {
            return None;
        }
        if let Some(Lender { socket, docker_host }) = &self.0.parts.lender {
            let lent = lend::borrow(socket, self.docker(), docker_host.as_deref(), class, name).await;
            return lent.map(Adopted::Parked);
        }
        match self.take(class) {
            Some(parked) => Some(Adopted::Parked(parked)),
            None => self.next(class)?.await.ok().map(Adopted::New),
        }
    }

    /// Has a container made, and takes the first that is ready after those who wait already.
    fn next(&self, class: &Class) -> Option<oneshot::Receiver<Opened>> {
        let shared = &self.0;
        let (waiting, ready) = oneshot::channel();
        let mut shelves = shared.shelves();
        if shelves.closed || shared.parts.size.most == 0 {
            return None;
        }
        let shelf = shelves.shelf(class, Instant::now());
        shelf.waiting.push_back(waiting);
        shelf.coming += 1;
        drop(shelves);
        let (shared, class) = (Arc::clone(shared), class.clone());
        self.spawn(async move { shared.start_one(class).await });
        Some(ready)
    }

    /// Takes a parked container of a class, if one is there.
    pub(super) fn take(&self, class: &Class) -> Option<Opened> {
        let shared = &self.0;
        if !class.may_park() || shared.parts.size.most == 0 {
            return None;
        }
        let now = Instant::now();
        let (mut spoilt, mut found) = (Vec::new(), None);
        {
            let mut shelves = shared.shelves();
            if shelves.closed {
                return None;
            }
            let shelf = shelves.shelf(class, now);
            shelf.demand.asked(now);
            while let Some(mut parked) = shelf.parked.pop_front() {
                if parked.is_sound() {
                    found = Some(parked);
                    break;
                }
                spoilt.push(parked);
            }
        }
        for _ in &spoilt {
            shared.tell(Pooled::Retired(Retired::Unhealthy));
        }
        shared.tell(found.as_ref().map_or(Pooled::Missed, |parked| Pooled::Hit(now.duration_since(parked.since))));
        shared.wanted.notify_one();
        found.map(|parked| parked.opened)
    }

    pub(super) fn tell(&self, what: Pooled) {
        self.0.tell(what);
    }

    /// Makes, starts and awaits a new container, under this name.
    ///
    /// # Errors
    /// What Docker refused; nothing of it is left.
    pub(super) async fn open(
        &self,
        name: &str,
        spec: &ContainerSpec,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<Opened, Failure> {
        let opened = open(self.docker(), self.0.parts.ledger.enter(self.docker(), name), spec, cancel).await;
        if opened.is_err() {
            self.0.parts.ledger.settle_in_foreground().await;
        }
        opened
    }

    /// Runs what uses a container of this pool; the end of the process waits for it.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.parts.ledger.spawn(work);
    }

    /// Completes when the pool is closed.
    pub(super) async fn closed(&self) {
        self.0.closing.subscribe().wait_for(|closed| *closed).await.ok();
    }

    /// Whether anything runs in a container of it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        *self.0.busy.borrow() > 0
    }

    /// Says that a job runs, until the answer is dropped.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.0.busy.send_modify(|jobs| *jobs += 1);
        Busy(&self.0.busy)
    }
}

/// A job that runs.
pub(super) struct Busy<'a>(&'a watch::Sender<usize>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|jobs| *jobs -= 1);
    }
}

impl Shelf {
    const fn new(now: Instant) -> Self {
        Self {
            parked: VecDeque::new(),
            waiting: VecDeque::new(),
            coming: 0,
            demand: Demand::new(now),
            not_before: None,
        }
    }

    /// Gives a container to the job that has waited longest; back, when none waits.
    fn hand_over(&mut self, mut opened: Opened) -> Option<Opened> {
        while let Some(waiting) = self.waiting.pop_front() {
            // One that was cancelled does not wait any more.
            opened = match waiting.send(opened) {
                Ok(()) => return None,
                Err(opened) => opened,
            };
        }
        Some(opened)
    }
}

impl Shelves {
    fn shelf(&mut self, class: &Class, now: Instant) -> &mut Shelf {
        self.of.entry(class.clone()).or_insert_with(|| Shelf::new(now))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

impl Shared {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: Pooled) {
        (self.parts.watcher)(what);
    }

    /// Takes out what is not to wait any longer, and says of which class one is to be started next.
    fn look(&self, now: Instant) -> (Vec<(Parked, Retired)>, Option<Next>) {
        let mut retired = Vec::new();
        let mut shelves = self.shelves();
        if shelves.closed {
            return (retired, None);
        }
        let size = self.parts.size;
        if let Some(usual) = &self.parts.usual
            && size.floor > 0
        {
            shelves.shelf(usual, now);
        }
        for shelf in shelves.of.values_mut() {
            for _ in 0..shelf.parked.len() {
                let Some(mut parked) = shelf.parked.pop_front() else { break };
                if parked.is_sound() {
                    shelf.parked.push_back(parked);
                } else {
                    retired.push((parked, Retired::Unhealthy));
                }
            }
            // One at a time, so that the others are there while it is replaced.
            if shelf.parked.front().is_some_and(|oldest| now.duration_since(oldest.since) >= MAX_AGE) {
                retired.extend(shelf.parked.pop_front().map(|parked| (parked, Retired::Old)));
            }
        }
        let wishes = shelves
            .of
            .iter_mut()
            .map(|(class, shelf)| Wish { class: class.clone(), last: shelf.demand.last, wanted: shelf.demand.now(now) })
            .collect();
        let mut next = None;
        for (class, place) in share_out(wishes, size, self.parts.usual.as_ref()) {
            let Some(shelf) = shelves.of.get_mut(&class) else { continue };
            while shelf.parked.len() > place {
                retired.extend(shelf.parked.pop_front().map(|parked| (parked, Retired::Surplus)));
            }
            let spare = shelf.coming.saturating_sub(shelf.waiting.len());
            if next.is_none() && shelf.parked.len() + spare < place && shelf.not_before.is_none_or(|time| time <= now) {
                shelf.coming += 1;
                next = Some(Next { class, urgent: shelf.parked.is_empty() });
            }
        }
        shelves.of.retain(|class, shelf| {
            let in_use = !shelf.parked.is_empty() || shelf.coming > 0;
            in_use || shelf.demand.now(now) > 0 || self.parts.usual.as_ref() == Some(class)
        });
        (retired, next)
    }

    /// Whether the sets that a class mounts are there. Docker makes an empty volume of one that is gone.
    async fn has_sets(&self, class: &Class) -> bool {
        for volume in class.sets() {
            let found = self.parts.docker.inspect_volume(volume).await;
            if !found.is_ok_and(|found| found.labels.contains_key(label::DEPS)) {
                return false;
            }
        }
        true
    }

    /// Starts a container, and gives it to the job that has waited longest, or parks it.
    async fn start_one(&self, class: Class) {
        if !self.has_sets(&class).await {
            // Whoever asks next has another set.
            let gone = self.shelves().of.remove(&class);
            drop(gone);
            return;
        }
        let name = format!("ade-parked-{}", Ulid::new().to_string().to_lowercase());
        let began = Instant::now();
        let mut labels = self.parts.labels.clone();
        // For what a crash leaves: it may be adopted at the last moment, by the longest job.
        let deadline = OffsetDateTime::now_utc() + MAX_AGE + self.parts.longest_job + Duration::from_secs(240);
        labels.insert(label::DEADLINE.to_owned(), deadline.format(&Rfc3339).unwrap_or_default());
        let spec = ContainerSpec { class, uid: private_uid(), labels };
        let held = self.parts.ledger.enter(&self.parts.docker, &name);
        let opened = match open(&self.parts.docker, held, &spec, &mut self.closing.subscribe()).await {
            Ok(opened) => match &opened.ready {
                Ok(ready) if ready.protocol == VERSION => Ok(opened),
                Ok(ready) => Err(format!("the image speaks protocol {}", ready.protocol)),
                Err(why) => Err(why.to_string()),
            },
            Err(Failure { message, .. }) => Err(message),
        };
        let now = Instant::now();
        let mut shelves = self.shelves();
        match opened {
            Ok(opened) if !shelves.closed => {
                let shelf = shelves.shelf(&spec.class, now);
                shelf.coming = shelf.coming.saturating_sub(1);
                if let Some(opened) = shelf.hand_over(opened) {
                    shelf.parked.push_back(Parked { opened, since: now });
                    drop(shelves);
                    self.tell(Pooled::Parked(now.duration_since(began)));
                }
            }
            Ok(_) => {}
            Err(why) => {
                if let Some(shelf) = shelves.of.get_mut(&spec.class) {
                    shelf.coming = shelf.coming.saturating_sub(1);
                    shelf.not_before = Some(now + AFTER_FAILURE);
                    // It makes its own, and says what is wrong.
                    shelf.waiting.pop_front();
                }
                drop(shelves);
                tracing::debug!(why, "no container could be started ahead");
            }
        }
    }
}

/// What is to be started.
struct Next {
    class: Class,
    /// Whether the next job of the class would find none.
    urgent: bool,
}

/// What was asked for of a class.
struct Wish {
    class: Class,
    last: Instant,
    wanted: usize,
}

/// How many of each class may be parked, in the order in which they are started: the floor first, then those that were asked for
/// last.
fn share_out(mut wishes: Vec<Wish>, size: PoolSize, usual: Option<&Class>) -> Vec<(Class, usize)> {
    wishes.sort_by_key(|wish| std::cmp::Reverse(wish.last));
    let (mut room, mut memory_mb) = (size.most, size.memory_mb);
    let mut grant = |class: &Class, wanted: usize| {
        let fit = usize::try_from(memory_mb / class.memory_mb().max(1)).unwrap_or(usize::MAX);
        let granted = wanted.min(room).min(fit);
        room -= granted;
        memory_mb -= class.memory_mb() * granted as u64;
        granted
    };
    // Its demand above the floor waits for its turn.
    let floor = wishes.iter_mut().find(|wish| usual == Some(&wish.class)).map_or(0, |wish| {
        let floor = grant(&wish.class, size.floor);
        wish.wanted = wish.wanted.saturating_sub(floor);
        floor
    });
    let mut places = Vec::new();
    for wish in wishes {
        let place = grant(&wish.class, wish.wanted);
        if usual == Some(&wish.class) {
            places.insert(0, (wish.class, floor + place));
        } else {
            places.push((wish.class, place));
        }
    }
    places
}

/// Keeps a pool as full as it should be, as long as somebody has it.
async fn refill(pool: Weak<Shared>, wanted: Arc<Notify>) {
    loop {
        let Some(shared) = pool.upgrade().filter(|shared| !*shared.closing.borrow()) else { return };
        let (retired, next) = shared.look(Instant::now());
        for (parked, why) in retired {
            shared.tell(Pooled::Retired(why));
            drop(parked);
        }
        if let Some(Next { class, urgent }) = next {
            if !urgent {
                let mut busy = shared.busy.subscribe();
                tokio::time::timeout(YIELD, busy.wait_for(|jobs| *jobs == 0)).await.ok();
            }
            shared.start_one(class).await;
            continue;
        }
        drop(shared);
        tokio::select! {
            () = wanted.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Caps, Limits, Requested};
    use super::super::spec::Mount;
    use super::*;

    fn class(image: &str, memory_mb: u64) -> Class {
        let requested = Requested { memory_mb: Some(memory_mb), timeout_ms: None };
        Class::new(image, None, &Limits::resolve(&Caps::default(), requested).unwrap(), &[])
    }

    fn shared(size: PoolSize, wishes: &[(&str, u64, usize)], usual: Option<&Class>) -> Vec<(String, usize)> {
        let now = Instant::now();
        let wishes = wishes.iter().enumerate().map(|(at, (image, memory_mb, wanted))| Wish {
            class: class(image, *memory_mb),
            last: now + Duration::from_secs(at as u64),
            wanted: *wanted,
        });
        let places = share_out(wishes.collect(), size, usual);
        places.into_iter().map(|(class, place)| (class.image().to_owned(), place)).collect()
    }

    #[test]
    fn demand_is_what_was_asked_for_in_the_busiest_second_of_the_last_minutes() {
        let begin = Instant::now();
        let mut demand = Demand::new(begin);
        assert_eq!(demand.now(begin), 0);
        for _ in 0..3 {
            demand.asked(begin);
        }
        let later = begin + Duration::from_secs(2);
        demand.asked(later);
        assert_eq!(demand.now(later), 3);
        assert_eq!(demand.now(later + DEMAND_WINDOW), 3, "it counts in the next window");
        assert_eq!(demand.now(later + 2 * DEMAND_WINDOW), 0, "and no longer");
    }

    #[test]
    fn the_floor_comes_first_then_whoever_was_asked_for_last_within_count_and_memory() {
        let usual = class("usual", 512);
        let size = PoolSize { floor: 2, most: 5, memory_mb: 100_000 };
        let wishes = [("usual", 512, 4), ("old", 512, 9), ("new", 512, 2)];
        let expected = |places: &[(&str, usize)]| -> Vec<(String, usize)> {
            places.iter().map(|(image, place)| ((*image).to_owned(), *place)).collect()
        };
        assert_eq!(shared(size, &wishes, Some(&usual)), expected(&[("usual", 2), ("new", 2), ("old", 1)]));
        let tight = PoolSize { memory_mb: 512 * 3 + 100, ..size };
        assert_eq!(shared(tight, &wishes, Some(&usual)), expected(&[("usual", 2), ("new", 1), ("old", 0)]));
        assert_eq!(shared(size, &[("usual", 512, 0)], Some(&usual)), expected(&[("usual", 2)]), "with nobody asking");
        assert_eq!(shared(size, &[("usual", 512, 9)], Some(&usual)), expected(&[("usual", 5)]));
        assert!(shared(PoolSize::NONE, &wishes, Some(&usual)).iter().all(|(_, place)| *place == 0));
    }

    #[test]
    fn what_an_installer_mounts_is_never_parked() {
        let limits = Limits::resolve(&Caps::default(), Requested::default()).unwrap();
        let with = |mount: Mount| Class::new("i", None, &limits, &[mount]).may_park();
        assert!(with(Mount::Set { volume: "v".into() }));
        assert!(!with(Mount::NewSet { volume: "v".into(), file_mb: 1 }));
        assert!(!with(Mount::Wheelhouse { source: "w".into(), folder: false, target: "/wheelhouse/instance".into() }));
    }
}
