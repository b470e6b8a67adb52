//! What an operator sees of a running service: the log on stderr, and metrics.

mod http;
mod log;
mod metrics;
mod table;

pub use http::record;
pub use log::{InvalidFilter, init};
pub use metrics::{LONGEST_QUEUES, Metrics, OpenStream, Phase};
pub use table::{Kind, METRICS, Metric};
