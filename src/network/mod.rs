//! Who may reach what: the network policy, as one pure function over four layers.
//!
//! From the top: the switch of the instance, the setting of the workspace, the setting of the package (a config), and what
//! the manifest asks for. [`decide`] makes one [`Decision`] of them for every job; it is recorded in the job, its event
//! `network.decision` and its artifact. `docs/operations/network.md` has the whole table.

mod hosts;
mod policy;

pub(crate) use hosts::is_number;
pub use hosts::{HostPattern, PatternError};
pub use policy::{Access, Decision, Layer, Layers, MAX_ALLOWED_HOSTS, Place, Purpose, Ruling, Stored, Switch, decide};
