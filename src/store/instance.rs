//! The installation's one row, and the nodes that work for it.

use super::audit::{Action, Actor, Deed};
use super::db::{Result, Tx, args, now_ms};
use super::{Store, StoreError};
use crate::ids::{InstanceId, NodeId};
use crate::network::Switch;
use crate::text::texts;
use serde_json::{Value, json};

texts! {
    /// Whether the queue takes jobs and hands them out.
    QueueState {
        /// It does both.
        On = "on",
        /// It takes jobs, and hands none out.
        Paused = "paused",
        /// It takes none and hands none out; jobs that wait stay.
        Off = "off",
    }
}

/// The installation.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Jobs that wait.
    pub queued: i64,
    /// Claims ever made.
    pub claimed: i64,
    /// State of the queue.
    pub queue_state: QueueState,
    /// Whether jobs are refused and none is handed out, as an emergency brake.
    pub safe_mode: bool,
    /// Bound on waiting jobs that an admin stored; `None` takes the setting.
    pub max_queued: Option<i64>,
    /// Containers at once per node that an admin stored; `None` takes the setting.
    pub max_concurrency: Option<i64>,
    /// Switch of the network policy that an admin stored; `None` takes the setting.
    pub network_switch: Option<Switch>,
}

/// What an admin changes; `None` leaves it, `Some(None)` goes back to the setting.
#[derive(Debug, Clone, Copy, Default)]
pub struct InstanceChange {
    /// State of the queue.
    pub queue_state: Option<QueueState>,
    /// Safe mode.
    pub safe_mode: Option<bool>,
    /// Bound on waiting jobs.
    pub max_queued: Option<Option<i64>>,
    /// Containers at once per node.
    pub max_concurrency: Option<Option<i64>>,
}

/// A process that works, or worked, for this installation.
#[derive(Debug, Clone)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// Host name.
    pub hostname: String,
    /// Version of the program.
    pub version: String,
    /// Start of the process, ms.
    pub started_at: i64,
    /// Last sign of life, ms.
    pub heartbeat_at: i64,
    /// Containers at once.
    pub max_concurrency: i64,
    /// Whether it takes no new jobs.
    pub draining: bool,
    /// Jobs it has.
    pub running: i64,
}

/// The instance row, locked until the end of the transaction, and the time by the database's clock where it has one.
pub(super) struct Locked {
    pub instance: Instance,
    pub share_clock: i64,
    pub now: i64,
}

impl Tx {
    /// The time by the clock that all nodes share: the database server's, where there is one. Milliseconds.
    pub(super) async fn now(&mut self) -> Result<i64> {
        match self {
            Self::Sqlite(_) => Ok(now_ms()),
            Self::Postgres(_) => {
                let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now";
                self.fetch_one(sql, Vec::new()).await?.map_or_else(|| Ok(now_ms()), |row| row.int("now"))
            }
        }
    }

    /// Locks the queue: see the module's documentation.
    pub(super) async fn lock(&mut self) -> Result<Locked> {
        let sql = self.pick(
            "SELECT id, queued, claimed, queue_state, safe_mode, max_queued, max_concurrency, network_switch, share_clock, 0 AS now FROM instance",
            "SELECT id, queued, claimed, queue_state, safe_mode, max_queued, max_concurrency, network_switch, share_clock, \
             CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now FROM instance FOR UPDATE",
        );
        let row = self.fetch_one(sql, Vec::new()).await?.ok_or_else(not_initialised)?;
        let now = self.pick(now_ms(), row.int("now")?);
        Ok(Locked { instance: read(&row)?, share_clock: row.int("share_clock")?, now })
    }
}

fn not_initialised() -> StoreError {
    StoreError::Internal("the instance row is missing".into())
}

fn read(row: &super::db::Row) -> Result<Instance> {
    Ok(Instance {
        id: row.parsed("id")?,
        queued: row.int("queued")?,
        claimed: row.int("claimed")?,
        queue_state: row.parsed("queue_state")?,
        safe_mode: row.flag("safe_mode")?,
        max_queued: row.opt_int("max_queued")?,
        max_concurrency: row.opt_int("max_concurrency")?,
        network_switch: row.opt_parsed("network_switch")?,
    })
}

/// What [`InstanceChange`] changes.
fn changeable(instance: &Instance) -> Value {
    json!({
        "queue_state": instance.queue_state, "safe_mode": instance.safe_mode, "max_queued": instance.max_queued,
        "max_concurrency": instance.max_concurrency,
    })
}

impl Store {
    /// The installation; made on the first call ever.
    ///
    /// # Errors
    /// The database's.
    pub async fn instance(&self) -> Result<Instance> {
        const SELECT: &str = "SELECT id, queued, claimed, queue_state, safe_mode, max_queued, max_concurrency, network_switch FROM instance";
        if let Some(row) = self.db.fetch_one(SELECT, Vec::new()).await? {
            return read(&row);
        }
        self.db
            .execute(
                "INSERT INTO instance (only_row, id, created_at) VALUES (1, $1, $2) ON CONFLICT (only_row) DO NOTHING",
                args![&InstanceId::generate(), now_ms()],
            )
            .await?;
        self.db.fetch_one(SELECT, Vec::new()).await?.ok_or_else(not_initialised).and_then(|row| read(&row))
    }

    /// Changes what an admin may change at run time; kept over restarts.
    ///
    /// # Errors
    /// The database's.
    pub async fn change_instance(&self, change: InstanceChange, by: &Actor) -> Result<Instance> {
        let mut tx = self.db.begin().await?;
        let mut instance = tx.lock().await?.instance;
        let before = changeable(&instance);
        instance.queue_state = change.queue_state.unwrap_or(instance.queue_state);
        instance.safe_mode = change.safe_mode.unwrap_or(instance.safe_mode);
        instance.max_queued = change.max_queued.unwrap_or(instance.max_queued);
        instance.max_concurrency = change.max_concurrency.unwrap_or(instance.max_concurrency);
        tx.execute(
            "UPDATE instance SET queue_state = $1, safe_mode = $2, max_queued = $3, max_concurrency = $4",
            args![instance.queue_state.as_str(), instance.safe_mode, instance.max_queued, instance.max_concurrency],
        )
        .await?;
        let (action, target) = (Action::InstanceChange, ("instance", instance.id.as_str()));
        tx.commit_noted(by, Deed::change(None, action, target, &before, &changeable(&instance))).await?;
        Ok(instance)
    }

    /// Says that a node is there; called at its start and with every heartbeat.
    ///
    /// # Errors
    /// The database's.
    pub async fn node_alive(&self, node: &NodeRecord) -> Result<()> {
        self.db
            .execute(
                "INSERT INTO nodes (id, hostname, version, started_at, heartbeat_at, max_concurrency, draining) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, \
                 version = excluded.version, started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, \
                 max_concurrency = excluded.max_concurrency, draining = excluded.draining",
                args![
                    &node.id,
                    node.hostname.as_str(),
                    node.version.as_str(),
                    node.started_at,
                    now_ms(),
                    node.max_concurrency,
                    node.draining,
                ],
            )
            .await
            .map(drop)
    }

    /// The nodes that were heard of in the last `within_ms` milliseconds.
    ///
    /// # Errors
    /// The database's.
    pub async fn nodes(&self, within_ms: i64) -> Result<Vec<NodeRecord>> {
        let rows = self
            .db
            .fetch(
                "SELECT id, hostname, version, started_at, heartbeat_at, max_concurrency, draining, \
                 (SELECT count(*) FROM jobs WHERE node_id = nodes.id AND state IN ('running', 'cancelling')) AS running \
                 FROM nodes WHERE heartbeat_at > $1 ORDER BY id",
                args![now_ms() - within_ms],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(NodeRecord {
                    id: row.parsed("id")?,
                    hostname: row.text("hostname")?,
                    version: row.text("version")?,
                    started_at: row.int("started_at")?,
                    heartbeat_at: row.int("heartbeat_at")?,
                    max_concurrency: row.int("max_concurrency")?,
                    draining: row.flag("draining")?,
                    running: row.int("running")?,
                })
            })
            .collect()
    }
}
