//! STUB
use crate::store::Workspace;
use std::time::Duration;
/// x
pub const MAX_WORKSPACES: i64 = 20;
/// x
#[derive(Debug, Default)]
pub struct Metrics;
#[allow(missing_docs, clippy::unused_self)]
impl Metrics {
    pub fn job_phase(&self, _p: &'static str, _ms: u64) {}
    pub fn event_written(&self) {}
    pub fn claimed(&self, _d: Duration) {}
    pub fn job_finished(&self, _s: &'static str, _k: &str) {}
    pub fn requeued(&self, _r: &str) {}
    pub fn queues(&self, _q: &[(Workspace, i64)], _queued: i64, _running: i64) {}
    pub fn containers(&self, _n: usize) {}
    pub fn streams(&self, _n: usize) {}
}
